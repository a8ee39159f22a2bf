"""Runs a file for verification, with tensors of its graph as additional outputs."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tensorflow_quantization.text.warn import warn_user

#: Runs a file: from its inputs by name to its outputs.
Loaded = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Runtime:
    """A runtime that can run a file.

    Attributes:
        title: the name of the runtime in messages.
        load: a function of the path of a file, and the names of additional tensors. It returns a function of the
            inputs by name, which returns the outputs of the file in order, then the additional tensors. It raises
            ImportError if the runtime is not installed.
    """

    title: str
    load: Callable[[Path, Sequence[str]], Loaded]


def _load_onnxruntime(path: Path, further: Sequence[str]) -> Loaded:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(_not_installed("ONNX Runtime", "onnxruntime")) from error
    options = onnxruntime.SessionOptions()
    # By default ONNX Runtime rounds to 8 bits what it multiplies by weights in blocks, which is less exact than Keras.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if further:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    elif _has_float8(path):
        # Measured with ONNX Runtime 1.32: its further optimizations remove a Relu before a QuantizeLinear with the zero
        # point 0, as if 0 were the lowest number of FP8.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with _exposing(path, further) as exposed:
        return onnxruntime_session(exposed, options)


def _has_float8(path: Path) -> bool:
    """Whether a file has quantizers of FP8."""
    constants = onnx.load(path, load_external_data=False).graph.initializer
    return any(constant.data_type == onnx.TensorProto.FLOAT8E4M3FN for constant in constants)


def onnxruntime_session(path: Path, options: Any = None) -> Loaded:
    """Loads a file in ONNX Runtime, with `SessionOptions`; ONNX Runtime must be installed."""
    import onnxruntime

    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def _load_openvino(path: Path, further: Sequence[str]) -> Loaded:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(_not_installed("OpenVINO", "openvino")) from error
    with _exposing(path, further) as exposed:
        # By default OpenVINO may compute in bfloat16, and round what it multiplies by integer weights to 8 bits: less
        # exact than Keras.
        exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        compiled = openvino.compile_model(exposed, "CPU", exact)

    def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        results = compiled(feeds)
        return [np.array(results[index]) for index in range(len(compiled.outputs))]

    return run


def _not_installed(title: str, extra: str) -> str:
    return (
        f"verify_with runs the file in {title}, which is not installed: pip install 'tensorflow-quantization[{extra}]'"
    )


@contextlib.contextmanager
def _exposing(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yields the path of a copy of the file with additional outputs, in the same directory as its external data."""
    if not names:
        yield path
        return
    model = onnx.load(path, load_external_data=False)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    with _beside(path, "exposed", model) as exposed:
        yield exposed


@contextlib.contextmanager
def without_quantizers(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yields the path of a copy of the file in which the named quantizers have no effect.

    Args:
        path: path of the file. The copy is in the same directory as its external data.
        names: names of the outputs of QuantizeLinear nodes. Readers of the dequantized tensor read the float tensor.
    """
    if not names:
        yield path
        return
    model = onnx.load(path, load_external_data=False)
    quantized = {node.output[0]: node.input[0] for node in model.graph.node if node.output[0] in names}
    exact = {n.output[0]: quantized[n.input[0]] for n in model.graph.node if n.input and n.input[0] in quantized}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = exact.get(name, name)
    with _beside(path, "without", model) as other:
        yield other


@contextlib.contextmanager
def _beside(path: Path, prefix: str, model: onnx.ModelProto) -> Iterator[Path]:
    """Yields the path of a file with `model` in the directory of `path`, and deletes the file at the end."""
    other = path.with_name(f"{prefix}_{path.name}")
    try:
        onnx.save(model, other)
        yield other
    finally:
        other.unlink(missing_ok=True)


RUNTIMES = {
    "onnxruntime": Runtime("ONNX Runtime", _load_onnxruntime),
    "openvino": Runtime("OpenVINO", _load_openvino),
}
#: The runtime that verifies files without a target, and files for a runtime that this module cannot run.
DEFAULT_RUNTIME = "onnxruntime"


def is_installed(runtime: str) -> bool:
    """Whether a runtime, a key of `RUNTIMES`, is installed."""
    return importlib.util.find_spec(runtime) is not None


def runtime_for(target: str | None) -> str:
    """The runtime that verifies files for a target: the target itself if it is installed, else ONNX Runtime.

    A warning says if the target could verify the file, but is not installed.
    """
    if target not in RUNTIMES or target == DEFAULT_RUNTIME:
        return DEFAULT_RUNTIME
    if is_installed(target):
        return target
    warn_user(
        f"{RUNTIMES[target].title}, the target of this file, is not installed, so the file is verified in "
        f"{RUNTIMES[DEFAULT_RUNTIME].title}: pip install 'tensorflow-quantization[{target}]'"
    )
    return DEFAULT_RUNTIME


def require_installed(runtime: str) -> None:
    """Raises: ImportError: the runtime is not installed."""
    if not is_installed(runtime):
        raise ImportError(_not_installed(RUNTIMES[runtime].title, runtime))
