"""Whether a runtime saturates on this processor.

x86 processors without VNNI have no instruction that multiplies uint8 by int8 and adds the products in 32 bits. Runtimes
use an instruction that adds two products in 16 bits and saturates at 32,767: 2 * 255 * 127 does not fit, 2 * 255 * 63
does. The documentation of ONNX Runtime recommends 7-bit weights ("Quantize ONNX models", `reduce_range`), or the option
`session.x64quantprecision`, with which it multiplies without this instruction.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES, onnxruntime_session
from tensorflow_quantization.text.warn import warn_user

#: The largest number of weight bits for which the sum of two products fits into 16 bits.
SAFE_WEIGHT_BITS = 7

#: How much saturation may change an output before the user is warned, relative to its largest value. It is about two
#: steps of an 8-bit quantizer.
_UNNOTICED = 0.01

_CHANNELS = 16


@functools.cache
def saturates(runtime: str, weight_bits: int = 8) -> bool:
    """Whether `runtime` saturates sums of uint8 times int8 products on this processor. It runs a small convolution.

    Args:
        runtime: "onnxruntime" or "openvino".
        weight_bits: bits of the weights, all of which have the largest value. Default: 8.

    Raises:
        ImportError: the runtime is not installed.
    """
    model = _convolution(2 ** (weight_bits - 1) - 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        onnx.save(model, path)
        (output,) = RUNTIMES[runtime].load(path, [])({"x": np.ones((1, _CHANNELS, 4, 4), np.float32)})
    return not np.allclose(output, _CHANNELS, rtol=0.01)


def warn_if_saturated(path: Path, batches: Iterable[dict[str, np.ndarray]]) -> None:
    """Warn if ONNX Runtime with its default options saturates on this processor, and an output of a file shows it.

    Verification runs files without optimizations, so without the kernels that saturate.

    Args:
        path: path of a file that ONNX Runtime can load.
        batches: inputs by name.
    """
    if not saturates("onnxruntime"):
        return
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Not x64quantprecision: with it, ONNX Runtime 1.32 does not load files whose weights two operators share.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    usual, exact = onnxruntime_session(path), onnxruntime_session(path, options)
    most = 0.0
    for batch in batches:
        for found, wanted in zip(usual(batch), exact(batch), strict=True):
            if wanted.size and np.issubdtype(wanted.dtype, np.floating):
                largest = max(float(np.abs(wanted).max()), float(np.finfo(np.float32).tiny))
                most = max(most, float(np.abs(found - wanted).max()) / largest)
    if most > _UNNOTICED:
        warn_user(
            f"ONNX Runtime saturates on this processor, which has no VNNI: it adds products of 8-bit integers in 16 "
            f"bits. The file is right, but an output changes by up to {most:.2g} of its largest value. For such "
            f"processors, quantize with weight_bits=7, or create the session with "
            f"options.add_session_config_entry('session.x64quantprecision', '1')."
        )


def _convolution(largest: int) -> onnx.ModelProto:
    """A quantized convolution whose inputs and weights are all 1.0, with the integers 255 and `largest`."""
    constants = {
        "scale": np.float32(1 / 255),
        "zero_point": np.uint8(0),
        "weight": np.full((4, _CHANNELS, 1, 1), largest, np.int8),
        "weight_scale": np.full(4, 1 / largest, np.float32),
        "weight_zero_point": np.zeros(4, np.int8),
        "output_scale": np.float32(_CHANNELS / 255),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["x_integers"]),
        helper.make_node("DequantizeLinear", ["x_integers", "scale", "zero_point"], ["x_floats"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero_point"], ["w"], axis=0),
        helper.make_node("Conv", ["x_floats", "w"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "output_scale", "zero_point"], ["y_integers"]),
        helper.make_node("DequantizeLinear", ["y_integers", "output_scale", "zero_point"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, _CHANNELS, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 13)
    return helper.make_model(graph, opset_imports=[opset], ir_version=helper.find_min_ir_version_for([opset]))
