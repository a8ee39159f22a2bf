"""The rules of OpenVINO on an x86 CPU: what prevents integer kernels.

Each rule was measured with OpenVINO 2026.4, and its test repeats the measurement. OpenVINO merges Q/DQ into
FakeQuantize and accepts them in most places, so it has fewer rules than ONNX Runtime.
"""

from __future__ import annotations

from tensorflow_quantization.inspection.checks import numerics, openvino_forms, placement
from tensorflow_quantization.inspection.checks.rule import Rule
from tensorflow_quantization.onnx_graph.operators import ACTIVATIONS

_MEASURED = "Measured: OpenVINO 2026.4, x86 CPU"
_ONNX = "ONNX, QuantizeLinear and DequantizeLinear"
_OPERATORS = "OpenVINO, Supported Operations, ONNX"

#: Operators that OpenVINO computes in float even between Q/DQ.
_FLOAT = {"HardSigmoid", "LayerNormalization", "Pad", "Softmax", "Softplus"}

#: The rule whose violation crashes the process.
MATRIX_AXIS = "matrix-axis"

RULES = (
    Rule(
        "scale",
        "error",
        "Scales are positive, finite constants.",
        "Store the scale as a constant, or calibrate the range that it comes from.",
        _MEASURED,
        numerics.bad_scales,
        keeps_float=True,
    ),
    Rule(
        "pair-mismatch",
        "warning",
        "A QuantizeLinear and its DequantizeLinear have the same scale, zero point and dtype.",
        "Use the same constants in both.",
        _ONNX,
        numerics.mismatched_pairs,
    ),
    Rule(
        "opset",
        "error",
        "The opset supports the quantizers.",
        "Write the file with a newer opset.",
        _ONNX,
        numerics.opset_too_old,
    ),
    Rule(
        "weight-axis",
        "warning",
        "Per-channel scales lie along the output channels: Conv 0, ConvTranspose 1.",
        "Quantize the weights with one scale per output channel.",
        _MEASURED,
        numerics.wrong_axes(("Conv", "ConvTranspose")),
        keeps_float=True,
    ),
    Rule(
        MATRIX_AXIS,
        "error",
        "Per-channel scales lie along the output channels: MatMul (K,N) 1, Gemm transB 0. Others crash the process.",
        "Quantize the weights with one scale per output channel.",
        "Measured: OpenVINO 2026.4 gets SIGFPE when it compiles a Gemm, or a MatMul of two dimensions",
        numerics.wrong_axes(("Gemm", "MatMul")),
        keeps_float=True,
    ),
    Rule(
        "unknown-operator",
        "error",
        "The ONNX frontend knows ONNX' operators and some from other domains.",
        "Replace it by ONNX operators, or register an OpenVINO extension.",
        _OPERATORS,
        numerics.unknown_operators(("ai.onnx.ml", "com.microsoft", "org.openvinotoolkit")),
    ),
    Rule(
        "no-quantizers",
        "warning",
        "Only quantized operators run in integer kernels.",
        "Quantize the model before exporting it.",
        _MEASURED,
        placement.nothing_quantized,
    ),
    Rule(
        "not-quantized",
        "info",
        "An operator without Q/DQ runs in float.",
        "To run it in integers, quantize its input and weights.",
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
        "weights-in-blocks",
        "info",
        "Weights in blocks are expanded while they are multiplied by floats.",
        "To compute in integers of 8 bits without a scale per block, quantize without blocks.",
        _MEASURED,
        placement.weights_in_blocks,
        keeps_float=True,
    ),
    Rule(
        "weight-zero-point",
        "warning",
        "Weights are int8 with zero point 0: with uint8 weights or another zero point, the operator runs in float.",
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
        "Weights are int8: OpenVINO stores other integers as they are, and multiplies in float.",
        "Quantize the weights symmetrically to int8.",
        _MEASURED,
        numerics.factors_other_than(("uint8", "int8"), weights=True),
        keeps_float=True,
    ),
    Rule(
        "matmul-zero-points",
        "warning",
        "In a MatMul of two activations, the left operand has zero point 0 and the right operand is symmetric.",
        "Quantize both symmetrically: to int8 with zero point 0; the right operand may be uint8 with zero point 128.",
        _MEASURED,
        openvino_forms.asymmetric_products,
        keeps_float=True,
    ),
    Rule(
        "grouped-transposed",
        "warning",
        "A ConvTranspose with groups has no integer kernel.",
        "Leave it in float.",
        _MEASURED,
        openvino_forms.grouped_transposed,
        keeps_float=True,
    ),
    Rule(
        "counted-padding",
        "error",
        "The input of an AveragePool that averages padding has zero point 0: OpenVINO always pads with the integer 0.",
        "Insert Pad, QuantizeLinear and DequantizeLinear before it, or quantize its input with zero point 0.",
        "Measured: OpenVINO 2026.4 returns wrong averages at the borders",
        openvino_forms.counted_padding,
    ),
    Rule(
        "pooled-activation",
        "error",
        "OpenVINO applies Abs, gelu, hard_silu, mish and silu before a MaxPool, if a Conv comes before the MaxPool.",
        'Export the model with export_onnx(target="openvino"), or insert a 1x1 MaxPool after the MaxPool.',
        "Measured: OpenVINO 2026.4, pools of one and two dimensions; the result is the maximum of the activations",
        openvino_forms.activations_of_pools,
    ),
    Rule(
        "negated-activation",
        "error",
        "OpenVINO multiplies by a negative constant, or subtracts, before Relu, LeakyRelu and PRelu of a quantized "
        "convolution.",
        'Export the model with export_onnx(target="openvino"), or insert a Max with the lowest float after the '
        "activation.",
        "Measured: OpenVINO 2026.4; it computes relu(-x) instead of -relu(x)",
        openvino_forms.negative_factors_of_activations,
    ),
    Rule(
        "uncovered-point",
        "error",
        "Where the strides of a quantized transposed convolution are longer than its kernel, OpenVINO adds no bias to "
        "the points that no input reaches, if the zero point of its input is 0 and a QuantizeLinear follows.",
        'Export the model with export_onnx(target="openvino"), or insert a Max with the lowest float after it.',
        "Measured: OpenVINO 2026.4; right without a bias",
        openvino_forms.points_without_bias,
    ),
    Rule(
        "lost-scales",
        "error",
        "If a product of integers has no bias, OpenVINO loses its scales where several nodes read a convolution, or a "
        "matrix product and one of them adds constants, and where a MaxPool and a Transpose, or a Reshape and a "
        "reduction, come after a convolution.",
        'Export the model with export_onnx(target="openvino"), or insert a Max with the lowest float after it.',
        "Measured: OpenVINO 2026.4; right with a bias that is not zero, and if all sizes are known",
        openvino_forms.products_without_scales,
    ),
    Rule(
        "channelwise-reduction",
        "error",
        "After a reduction of (batch, channels, steps), OpenVINO takes factors and shifts of channels for the batch. "
        "With quantizers in the file, it moves factors from before a mean, sum, maximum or minimum there.",
        'Export the model with export_onnx(target="openvino"), or insert a MaxPool of kernel 1 after the reduction.',
        "Measured: OpenVINO 2026.4, tensors of rank 3; right for a batch of one",
        openvino_forms.channelwise_reductions_of_sequences,
    ),
    Rule(
        "quantized-reduction",
        "error",
        "OpenVINO quantizes a maximum or minimum of floats to whole numbers, and a reduction of a product of integers "
        "to arbitrary ones: something is between such a reduction and its QuantizeLinear.",
        'Export the model with export_onnx(target="openvino"), or insert a Max with the lowest float, or reduce with '
        "keepdims=1 and insert a Squeeze.",
        "Measured: OpenVINO 2026.4; of products, reductions to rank 2 without the reduced axes",
        openvino_forms.reductions_with_quantizers,
    ),
    Rule(
        "dequantized-input",
        "error",
        "OpenVINO reduces and pads integers wrong: in a mean or sum along axis 1 of three, only the first sample is "
        "right; behind a maximum or minimum, or a mean or sum of what was multiplied by constants that differ, a "
        "quantizer has wrong scales. A Pad of integers with a zero point is wrong along axis 1, and behind two "
        "quantizers.",
        'Export the model with export_onnx(target="openvino"), or insert a Max with the lowest float before it.',
        "Measured: OpenVINO 2026.4",
        openvino_forms.operators_on_integers,
    ),
    Rule(
        "scaled-normalization",
        "warning",
        "OpenVINO drops factors before a normalization. Epsilon makes them matter: the less the variance, the more.",
        'Export the model with export_onnx(target="openvino"), or insert a Max with the lowest float before it.',
        "Measured: OpenVINO 2026.4, LayerNormalization and InstanceNormalization in files with quantizers",
        openvino_forms.factors_before_normalizations,
    ),
    Rule(
        "misplaced-constant",
        "error",
        "After a product of integers and weights, OpenVINO takes factors that differ along another axis than the last "
        "for arbitrary ones; and in a tensor of four axes, after any product with weights, constants along axis 1 for "
        "those of the units.",
        'Export the model with export_onnx(target="openvino"), or insert a Max with the lowest float before them.',
        "Measured: OpenVINO 2026.4; factors of integers only if a size is unknown, such as the batch",
        openvino_forms.constants_after_products,
    ),
    Rule(
        "rounded-result",
        "warning",
        "OpenVINO rounds to integers what a Clip or an AveragePool makes of a dequantized tensor.",
        'Export the model with export_onnx(target="openvino"), or insert a Max with the lowest float before it.',
        "Measured: OpenVINO 2026.4; off by up to half a step; right if 0 is the only limit, and for averages that only "
        "quantizers read",
        openvino_forms.results_in_integers,
    ),
    Rule(
        "sequence-lengths",
        "error",
        "OpenVINO ignores sequence_lens of a GRU, LSTM or RNN if a size of its input is unknown, such as the batch.",
        'Export the model with export_onnx(target="openvino"), or with a fixed batch size and number of steps.',
        "Measured: OpenVINO 2026.4 returns the states after the last step of the longest sequence",
        openvino_forms.sequence_lengths,
    ),
    Rule(
        "recurrent-activation",
        "error",
        "The activations of a GRU, LSTM or RNN are Sigmoid, Tanh or Relu: OpenVINO does not load others.",
        'Export the model with export_onnx(target="openvino") and a fixed number of steps, or use other activations.',
        "Measured: OpenVINO 2026.4",
        openvino_forms.recurrent_activations,
    ),
    Rule(
        "strided-pointwise",
        "warning",
        "If only strided 1x1 Convs read a DequantizeLinear, OpenVINO moves their strides before it, and runs in float.",
        "Insert a 1x1 MaxPool with these strides after the DequantizeLinear, and set the strides of the Convs to 1.",
        "Measured: OpenVINO 2026.4; with the MaxPool, ResNet50 takes 0.87 times the time",
        openvino_forms.strided_pointwise,
        keeps_float=True,
    ),
    Rule(
        "integer-operator",
        "warning",
        "OpenVINO computes these integer operators in float: ConvInteger, MatMulInteger, and with per-channel scales "
        "QLinearConv and QLinearMatMul.",
        "Replace it by DequantizeLinear, the float operator and QuantizeLinear.",
        _MEASURED,
        openvino_forms.integer_operators,
        keeps_float=True,
    ),
    Rule(
        "float-operator",
        "info",
        "An operator between DequantizeLinear and QuantizeLinear has an integer kernel.",
        "Leave it in float, without Q/DQ around it; for a Pad, use the pads of the Conv.",
        _MEASURED,
        placement.surrounded(_FLOAT),
        keeps_float=True,
    ),
    Rule(
        "quantized-elementwise",
        "info",
        "Quantizers around an elementwise operator that would fuse gain nothing and add reorders.",
        "Quantize inputs of weighted operators, additions and poolings only.",
        "Measured: OpenVINO 2026.4, ResNet50, everything quantized 9.2 ms, inputs only 6.1 ms",
        placement.surrounded(ACTIVATIONS | {"Div", "Mul", "Sub"}),
    ),
)
