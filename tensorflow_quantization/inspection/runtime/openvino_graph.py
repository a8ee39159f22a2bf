"""The kernels that OpenVINO executes for a file, read from the execution graph of the compiled model."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_quantization.inspection.checks.openvino import MATRIX_AXIS
from tensorflow_quantization.inspection.runtime.kernels import Kernel, tags

_MULTIPLIES = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNCell", "RNNSeq", "Subgraph"}
_RECURRENT = {"RNNCell", "RNNSeq"}
_LAYOUT = {"Convert", "Reorder", "Transpose"}

#: Nodes of the execution graph that execute nothing.
_PASSIVE = {"Const", "Input", "Output"}

_INTEGERS = ("i8", "u8")

#: Compiles the file in the first argument.
_COMPILE = "import sys, openvino; openvino.Core().compile_model(sys.argv[1], 'CPU', {'INFERENCE_NUM_THREADS': 1})"

#: Seconds for it: far above what a large network needs.
_MOST_SECONDS = 600

#: Rules of `check_onnx` whose violation crashes the process: such a file is not compiled.
REFUSED = (MATRIX_AXIS,)

#: A kernel may carry the tag of the last node fused into it only.
NAMES_ALL_NODES = False


def installed_version() -> str:
    """The runtime's name and version.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise ImportError("runtime_report(runtime='openvino') needs OpenVINO: pip install openvino") from error
    return f"OpenVINO {openvino.__version__.split('-')[0]}"


def executed(path: pathlib.Path, shapes: Mapping[str, Sequence[int]]) -> list[Kernel]:
    """The kernels of the model, compiled for the CPU with default settings, in no particular order.

    Args:
        path: a file written by `write_tagged`.
        shapes: not needed: the file is compiled with its dynamic shapes.

    Raises:
        RuntimeError: OpenVINO does not compile the file, or not in `_MOST_SECONDS`.
    """
    import openvino

    # OpenVINO ends the process at some damaged files, and may compile forever, so another process compiles first.
    command = [sys.executable, "-c", _COMPILE, str(path)]
    try:
        tried = subprocess.run(command, capture_output=True, timeout=_MOST_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"it did not compile the file in {_MOST_SECONDS} s, and was stopped") from error
    if tried.returncode < 0:
        raise RuntimeError(f"it ended the process that compiled the file, with signal {-tried.returncode}")
    try:
        compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    except Exception as error:  # its exceptions have no common base
        raise RuntimeError(str(error)) from error
    return [kernel for step in compiled.get_runtime_model().get_ops() if (kernel := _kernel(step)) is not None]


def _info(step: Any, key: str) -> str:
    info = step.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""


def _kernel(step: Any) -> Kernel | None:
    kind, precision = _info(step, "layerType"), _info(step, "runtimePrecision")
    if kind in _PASSIVE:
        return None
    # `precision` is the dtype of the first input. A layer with 8-bit weights may multiply in float; only the name
    # of its primitive says so: "brgemm_avx512_bf16". Names of integer primitives end in "I8" or "i8".
    primitive = _info(step, "primitiveType").rpartition("_")[2].lower()
    integer: bool | None = precision in _INTEGERS and primitive in _INTEGERS
    # A fused subgraph does not say how its products are computed: surely in integers only if all its inputs are 8-bit.
    if kind == "Subgraph" and integer:
        sources = [port.get_source_output().get_node() for port in step.inputs()]
        read = [_info(source, "outputPrecisions") for source in sources if _info(source, "layerType") != "Const"]
        integer = True if all(precision in _INTEGERS for precision in read) else None
    shown = precision if integer or precision not in _INTEGERS else primitive
    nodes = _tags(step) or (_arranging(step) if kind in _RECURRENT else ())
    return Kernel(kind, shown, integer, kind in _MULTIPLIES, kind in _LAYOUT, nodes, kind == "Subgraph")


def _tags(step: Any) -> tuple[int, ...]:
    return tags([step.get_friendly_name(), _info(step, "originalLayersNames")])


def _arranging(step: Any) -> tuple[int, ...]:
    """The tags of what arranges the outputs of a step. OpenVINO runs a recurrent layer in an operator of its own.

    Only the arranging has the layer's name, behind reorders without one.
    """
    for output in step.outputs():
        for reader in (port.get_node() for port in output.get_target_inputs()):
            if _info(reader, "layerType") in ("Reshape", *_LAYOUT) and (found := _tags(reader) or _arranging(reader)):
                return found
    return ()
