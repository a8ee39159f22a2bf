"""`env`: versions and devices, for a report of a bug."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from typing import Any

from tensorflow_quantization_cli import arguments, results, start

HELP = "Print the versions of Python, Keras, its backend and the runtimes, and the devices, for a report of a bug."
DESCRIPTION = ""
USAGE = "[--json]"
EXAMPLES = ("", "--json")
FINDINGS = ""

#: Packages that make a difference, as registries name them.
PACKAGES = (
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "numpy",
    "pillow",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "openvino",
    "tensorrt-rtx",
    "ai-edge-litert",
    "tf2onnx",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    facts = {
        "tensorflow_quantization": start.version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        **_backend(),
    }
    results.show_dict(facts, _text(facts), options.json)
    return 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _backend() -> dict[str, Any]:
    """The backend and its devices; a backend that is not installed is what a report of a bug is about."""
    try:
        start.package()
        import keras

        from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES, is_installed
        from tensorflow_quantization.export.verification.processor import saturates

        return {
            "backend": keras.backend.backend(),
            "devices": _devices(keras.backend.backend()),
            "saturates": {name: saturates(name) for name in RUNTIMES if is_installed(name)},
        }
    except Exception as error:
        return {"backend": f"{type(error).__name__}: {error}"}


def _devices(backend: str) -> list[str]:
    if backend == "torch":  # Keras does not list its devices
        import torch

        return ["cpu", *(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))]
    import keras

    return [str(device) for device in keras.distribution.list_devices()]


def _text(facts: dict[str, Any]) -> str:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            found = {k: ("not installed" if v is None else v) for k, v in value.items()}
            lines += [f"{name}:", *(f"  {key:<15} {shown}" for key, shown in found.items())]
        else:
            lines.append(f"{name + ':':<24} {', '.join(value) if isinstance(value, list) else value}")
    return "\n".join(lines)
