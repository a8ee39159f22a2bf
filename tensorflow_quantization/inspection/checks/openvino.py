"""OpenVINO on an x86 CPU: what keeps an operator out of int8.

Each rule was measured with OpenVINO 2026.4, and its test measures it again. OpenVINO merges Q/DQ into FakeQuantize and
wants no particular place for them, so there are fewer rules than for ONNX Runtime.
"""

from __future__ import annotations

from tensorflow_quantization.inspection.checks import numerics, openvino_forms, placement
from tensorflow_quantization.inspection.checks.rule import Rule
from tensorflow_quantization.onnx_graph.operators import ACTIVATIONS

_MEASURED = "Measured: OpenVINO 2026.4, x86 CPU"
_ONNX = "ONNX, QuantizeLinear and DequantizeLinear"
_OPERATORS = "OpenVINO, Supported Operations, ONNX"

#: Operators that OpenVINO computes in float whatever stands around them.
_FLOAT = {"HardSigmoid", "LayerNormalization", "Pad", "Softmax", "Softplus"}

#: The rule whose violation takes the process down with it.
MATRIX_AXIS = "matrix-axis"

RULES = (
    Rule(
        "scale",
        "error",
        "Scales are positive, finite constants.",
        "Fold what computes the scale, or calibrate the range that it comes from.",
        _MEASURED,
        numerics.bad_scales,
        keeps_float=True,
    ),
    Rule(
        "pair-mismatch",
        "warning",
        "A QuantizeLinear and its DequantizeLinear have the same scale, zero point and dtype.",
        "Give both the same constants.",
        _ONNX,
        numerics.mismatched_pairs,
    ),
    Rule(
        "opset",
        "error",
        "The opset has what the quantizers use.",
        "Write the file with a newer opset.",
        _ONNX,
        numerics.opset_too_old,
    ),
    Rule(
        "weight-axis",
        "warning",
        "Per-channel scales lie along the output channels: Conv 0, ConvTranspose 1.",
        "Quantize the weights along their output channels, a scale for each.",
        _MEASURED,
        numerics.wrong_axes(("Conv", "ConvTranspose")),
        keeps_float=True,
    ),
    Rule(
        MATRIX_AXIS,
        "error",
        "Per-channel scales lie along the output channels: MatMul (K,N) 1, Gemm transB 0. Others end the process.",
        "Quantize the weights along their output channels, a scale for each.",
        "Measured: OpenVINO 2026.4 compiling a Gemm, or a MatMul of two dimensions, gets SIGFPE",
        numerics.wrong_axes(("Gemm", "MatMul")),
        keeps_float=True,
    ),
    Rule(
        "unknown-operator",
        "error",
        "The ONNX frontend knows ONNX' operators and some of other domains.",
        "Write it with ONNX operators, or register an OpenVINO extension.",
        _OPERATORS,
        numerics.unknown_operators(("ai.onnx.ml", "com.microsoft", "org.openvinotoolkit")),
    ),
    Rule(
        "no-quantizers",
        "warning",
        "Integer kernels take the place of quantized operators.",
        "Quantize the model before exporting it.",
        _MEASURED,
        placement.nothing_quantized,
    ),
    Rule(
        "not-quantized",
        "info",
        "What is not quantized runs in float.",
        "Quantize its input and weights if it should run in integers.",
        _MEASURED,
        placement.left_in_float,
        keeps_float=True,
    ),
    Rule(
        "half-quantized",
        "warning",
        "Both factors of a weighted operator are quantized.",
        "Add Q/DQ to the other factor.",
        _MEASURED,
        placement.half_quantized(("Relu",)),
        keeps_float=True,
    ),
    Rule(
        "weight-zero-point",
        "warning",
        "Weights are int8 with zero point 0; unsigned ones, and any zero point, make the operator float.",
        "Quantize the weights symmetrically to int8.",
        _MEASURED,
        numerics.weights_with_offset,
        keeps_float=True,
    ),
    Rule(
        "activation-dtype",
        "warning",
        "Activations are uint8 or int8.",
        "Quantize to 8 bits.",
        _MEASURED,
        numerics.factors_other_than(("uint8", "int8"), weights=False),
        keeps_float=True,
    ),
    Rule(
        "weight-dtype",
        "warning",
        "Weights are int8: others are stored as they are, and multiplied in float.",
        "Quantize the weights symmetrically to int8.",
        _MEASURED,
        numerics.factors_other_than(("uint8", "int8"), weights=True),
        keeps_float=True,
    ),
    Rule(
        "matmul-zero-points",
        "warning",
        "Of two activations in a MatMul, the left one has zero point 0 and the right one is symmetric.",
        "Quantize both symmetrically: int8 with zero point 0, or on the right uint8 with 128.",
        _MEASURED,
        openvino_forms.asymmetric_products,
        keeps_float=True,
    ),
    Rule(
        "grouped-transposed",
        "warning",
        "A ConvTranspose in groups has no integer kernel.",
        "Leave it in float.",
        _MEASURED,
        openvino_forms.grouped_transposed,
        keeps_float=True,
    ),
    Rule(
        "counted-padding",
        "error",
        "Where an AveragePool averages padding, the integer 0 is zero: OpenVINO pads with it whatever the zero point.",
        "Put a Pad, a QuantizeLinear and a DequantizeLinear before it, or quantize with zero point 0.",
        "Measured: OpenVINO 2026.4 gives wrong averages at the borders",
        openvino_forms.counted_padding,
    ),
    Rule(
        "strided-pointwise",
        "warning",
        "Where only Convs of one point with strides read a DequantizeLinear, OpenVINO strides before it, without int8.",
        "Put a MaxPool of one point with the strides between the two, and let the Convs have strides of 1.",
        "Measured: OpenVINO 2026.4; with the MaxPool, ResNet50 takes 0.87 times the time",
        openvino_forms.strided_pointwise,
        keeps_float=True,
    ),
    Rule(
        "integer-operator",
        "warning",
        "Integer operators are taken apart into float ones: ConvInteger, MatMulInteger, and with a scale for each "
        "channel QLinearConv and QLinearMatMul.",
        "Write DequantizeLinear, the float operator, QuantizeLinear.",
        _MEASURED,
        openvino_forms.integer_operators,
        keeps_float=True,
    ),
    Rule(
        "float-operator",
        "info",
        "Between a DequantizeLinear and a QuantizeLinear stand operators that have an integer kernel.",
        "Leave it in float, without Q/DQ around it; put padding into the Conv.",
        _MEASURED,
        placement.surrounded(_FLOAT),
        keeps_float=True,
    ),
    Rule(
        "quantized-elementwise",
        "info",
        "Quantizers around an elementwise operator gain nothing where it would fuse: they add reorders.",
        "Quantize inputs of weighted operators, additions and poolings only.",
        "Measured: OpenVINO 2026.4, ResNet50, everything quantized 9.2 ms, inputs only 6.1 ms",
        placement.surrounded(ACTIVATIONS | {"Div", "Mul", "Sub"}),
    ),
)
