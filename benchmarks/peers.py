"""What a user would do instead: the post-training quantization that comes with each runtime, of the same model."""

from __future__ import annotations

import importlib.util
import logging
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

#: A peer that needs a package of its own: its name here, and in the package index.
OPTIONAL = {"nncf": "nncf"}


def missing() -> list[str]:
    """The packages of peers that are not installed."""
    return [package for module, package in OPTIONAL.items() if importlib.util.find_spec(module) is None]


def prepared(float_onnx: pathlib.Path) -> pathlib.Path:
    """A copy of a float file, beside it, as ONNX Runtime's documentation asks for before quantization.

    Constants are folded: otherwise no peer finds the biases, which it corrects.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = float_onnx.with_name(f"prepared {float_onnx.name}")
    if not path.exists():
        quant_pre_process(str(float_onnx), str(path))
    return path


def quantize_static(
    prepared: pathlib.Path, data: np.ndarray, path: pathlib.Path, activations: str = "uint8", method: str = "MinMax"
) -> None:
    """ONNX Runtime's own quantizer, in Q/DQ format with weights per channel.

    Args:
        prepared: see `prepared`.
        data: the calibration set.
        path: of the file to write.
        activations: "uint8" (default) or "int8".
        method: "MinMax" (default), "Percentile" or "Entropy".
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(data[i : i + 1] for i in range(len(data)))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    name = input_name(prepared)
    quantize(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=CalibrationMethod[method],
    )


def input_name(path: pathlib.Path) -> str:
    """The name of the only input of an `.onnx` file."""
    import onnx

    return onnx.load(path, load_external_data=False).graph.input[0].name


#: NNCF's presets for activations.
NNCF_PRESETS = ("performance", "mixed")


def nncf_quantize(
    prepared: pathlib.Path, data: np.ndarray, path: pathlib.Path, preset: str, transformer: bool, fast: bool = True
) -> None:
    """NNCF's post-training quantization for OpenVINO.

    Args:
        prepared: see `prepared`.
        data: the calibration set.
        path: of the `.xml` file to write.
        preset: one of `NNCF_PRESETS`.
        transformer: tell NNCF that the model is one, as its documentation asks for.
        fast: its fast bias correction, the default, or the more accurate one.
    """
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model_type = nncf.ModelType.TRANSFORMER if transformer else None
    model = openvino.Core().read_model(prepared)
    model.reshape([1, *data.shape[1:]])
    quantized = nncf.quantize(
        model,
        nncf.Dataset([data[i : i + 1] for i in range(len(data))]),
        preset=nncf.QuantizationPreset(preset),
        subset_size=len(data),
        model_type=model_type,
        fast_bias_correction=fast,
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def litert_post_training(model: keras.Model, data: np.ndarray | None, path: pathlib.Path) -> None:
    """TensorFlow's converter, without quantization (no data) or with that of a representative data set."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as saved:
        model.export(saved, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        if data is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([data[i : i + 1]] for i in range(len(data)))
        path.write_bytes(converter.convert())


#: What ModelOpt needs, in an environment of its own: it asks for older versions than ours of what we have, too.
MODELOPT = "nvidia-modelopt[onnx]"
MODELOPT_ENVIRONMENT = pathlib.Path(__file__).parents[1] / ".cache" / "modelopt"
#: What its environment must have for `modelopt_quantize`, for the page.
_MODELOPT_VERSIONS = """
from importlib.metadata import PackageNotFoundError, version
for name in ("nvidia-modelopt", "onnx", "onnxruntime-gpu", "onnxruntime"):
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""


def modelopt_environment(install: bool) -> pathlib.Path:
    """The Python that has ModelOpt, in an environment of its own.

    Args:
        install: make the environment if it is not there, for which pip loads gigabytes.

    Raises:
        RuntimeError: it is not there, or pip cannot install it; the message has the end of what pip said.
    """
    python, whole = MODELOPT_ENVIRONMENT / "bin" / "python", MODELOPT_ENVIRONMENT / "installed"
    if not whole.exists() and not install:
        raise RuntimeError("ModelOpt is not installed; `make tensorrt` installs it in an environment of its own")
    if not whole.exists():
        subprocess.run([sys.executable, "-m", "venv", MODELOPT_ENVIRONMENT], check=True)
        _run([python, "-m", "pip", "install", "--quiet", MODELOPT])
        whole.touch()  # an interrupted install starts again
    return python


def modelopt_versions(python: pathlib.Path) -> str:
    """The versions of ModelOpt and of what it quantizes with."""
    return ", ".join(_run([python, "-c", _MODELOPT_VERSIONS]).splitlines())


def modelopt_quantize(
    python: pathlib.Path,
    float_onnx: pathlib.Path,
    calibration: pathlib.Path,
    path: pathlib.Path,
    method: str,
    precision: str,
) -> None:
    """NVIDIA ModelOpt's post-training quantization for TensorRT.

    Args:
        python: see `modelopt_environment`.
        float_onnx: the file to quantize.
        calibration: an `.npz` file with an array for each input, by name.
        path: of the file to write.
        method: "entropy" or "max".
        precision: of all that is not quantized, "fp16" or "fp32".

    Raises:
        RuntimeError: ModelOpt failed; the message has the end of what it printed.
    """
    script = pathlib.Path(__file__).with_name("modelopt_quantize.py")
    # -P: ModelOpt looks for a package "tensorrt", and would find the benchmark of this name beside the script.
    _run([python, "-P", script, float_onnx, calibration, path, method, precision])


def _run(command: list) -> str:
    """What a command prints; raises a RuntimeError with the end of its complaints if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[1:3]} failed: {done.stderr[-2000:]}")
    return done.stdout
