"""ONNX Runtime on an x86 CPU: what it fuses into integer kernels.

Each rule was measured with ONNX Runtime 1.32, and its test measures it again.
"""

from __future__ import annotations

from tensorflow_quantization.inspection.checks import numerics, onnxruntime_output, placement
from tensorflow_quantization.inspection.checks.rule import Rule

_MEASURED = "Measured: ONNX Runtime 1.32, x86 CPU"
_ONNX = "ONNX, QuantizeLinear and DequantizeLinear"
_OPERATORS = "ONNX Runtime, Operator Kernels"

#: Operators that a quantizer moves forward through to a weighted operator. Measured: Flatten, Concat, Split and Resize
#: are not among them; a pair of their own behind them is needed. A Pad with a constant becomes part of the Conv.
_PASSED = ("Identity", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")

#: Operators without an integer kernel, weighted ones apart.
_FLOAT = frozenset(
    {"BatchNormalization", "Div", "Elu", "Erf", "Exp", "Gelu", "GlobalMaxPool", "GroupNormalization", "HardSigmoid"}
    | {"HardSwish", "InstanceNormalization", "LayerNormalization", "Log", "Max", "Min", "Mish", "Neg", "PRelu", "Pad"}
    | {"Pow", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Selu", "Softplus", "Sqrt", "Sub", "Swish"}
    | {"Tanh"}
)

#: Operators that have an integer kernel when inputs and output are quantized.
_INTEGER = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax"})

_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})

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
        numerics.mismatched_pairs_within,
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
        "error",
        "Per-channel scales lie along the output channels, Conv 0, MatMul (K,N) 1, Gemm transB 0: others stay float, "
        "fail to run, or give wrong numbers.",
        "Quantize the weights along their output channels, a scale for each.",
        "Measured: QLinearConv and MatMulIntegerToFloat take any scales for those of the output channels",
        numerics.wrong_axes(("Conv", "Gemm", "MatMul")),
        keeps_float=True,
    ),
    Rule(
        "unknown-operator",
        "error",
        "The runtime knows ONNX' operators and its own.",
        "Write it with ONNX operators, or register a custom operator library.",
        _OPERATORS,
        numerics.unknown_operators(("ai.onnx.ml", "ai.onnx.training", "com.microsoft", "com.microsoft.nchwc")),
    ),
    Rule(
        "bias-scale",
        "warning",
        "An integer bias of a Conv has the scale of the input times that of the weights.",
        "Store the bias in float; ONNX Runtime quantizes it itself.",
        _MEASURED,
        numerics.bias_off_scale(("Conv",)),
        keeps_float=True,
    ),
    Rule(
        "gemm-bias-scale",
        "error",
        "An integer bias of a Gemm has the scale of the input times that of the weights, or results are wrong.",
        "Store the bias in float; ONNX Runtime quantizes it itself.",
        "Measured: QGemm adds the integers of the bias without looking at their scale",
        numerics.bias_off_scale(("Gemm",)),
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
        "Quantize its input, weights and output if it should run in integers.",
        _MEASURED,
        placement.left_in_float,
        keeps_float=True,
    ),
    Rule(
        "float-input",
        "warning",
        "Every factor of a weighted operator is quantized, right before it.",
        "Add Q/DQ to the input, behind whatever makes it.",
        _MEASURED,
        placement.float_inputs,
        keeps_float=True,
    ),
    Rule(
        "float-weights",
        "warning",
        "Weights are quantized in the file: where they are not, ONNX Runtime quantizes those of a Conv itself.",
        "Store the weights as int8 with a DequantizeLinear, a scale for each output channel.",
        _MEASURED,
        placement.float_weights,
    ),
    Rule(
        "input-adjacent",
        "warning",
        f"Between an input's DequantizeLinear and a weighted operator stand only {', '.join(_PASSED)}.",
        "Add Q/DQ with the same scale behind the operator in between.",
        _MEASURED,
        placement.inputs_not_adjacent(_PASSED),
        keeps_float=True,
    ),
    Rule(
        "weight-adjacent",
        "warning",
        "The DequantizeLinear of the weights feeds its operator directly, or through a Transpose.",
        "Store the weights in the operator's own shape, and move the scales' axis with them.",
        _MEASURED,
        placement.weights_not_adjacent(("Identity", "Transpose", "Cast")),
        keeps_float=True,
    ),
    Rule(
        "activation-dtype",
        "warning",
        "Activations are uint8 or int8.",
        "Quantize to uint8: zero point 0 after a ReLU, affine elsewhere.",
        _MEASURED,
        numerics.factors_other_than(("uint8", "int8"), weights=False),
        keeps_float=True,
    ),
    Rule(
        "weight-dtype",
        "warning",
        "Weights are int8, or uint8.",
        "Quantize the weights to int8.",
        _MEASURED,
        numerics.factors_other_than(("uint8", "int8"), weights=True),
        keeps_float=True,
    ),
    Rule(
        "scale-dtype",
        "warning",
        "Scales, and so the values between the quantizers, are float32.",
        "Export in float32 for this runtime.",
        _MEASURED,
        numerics.scales_other_than(("float32",)),
        keeps_float=True,
    ),
    Rule(
        "per-channel-activation",
        "warning",
        "Activations have one scale.",
        "Quantize the activation per tensor.",
        _MEASURED,
        numerics.per_channel_activations,
        keeps_float=True,
    ),
    Rule(
        "no-integer-kernel",
        "warning",
        "ConvTranspose has no integer kernel.",
        "Leave it in float, or use resizing and a Conv.",
        _MEASURED,
        numerics.quantized_operators(("ConvTranspose",)),
        keeps_float=True,
    ),
    Rule(
        "gemm-form",
        "warning",
        "A Gemm has alpha and beta 1, and a vector for bias.",
        "Multiply the factors into the weights, and flatten the bias.",
        _MEASURED,
        onnxruntime_output.gemm_forms,
        keeps_float=True,
    ),
    Rule(
        "graph-output",
        "warning",
        "What is fused is no output of the graph itself.",
        "Make the DequantizeLinear behind it the output.",
        _MEASURED,
        onnxruntime_output.outputs("graph-output"),
        keeps_float=True,
    ),
    Rule(
        "several-readers",
        "warning",
        "The output of a weighted operator has one reader, a QuantizeLinear.",
        "Quantize the output once, and let all readers read the DequantizeLinear.",
        _MEASURED,
        onnxruntime_output.outputs("several-readers"),
        keeps_float=True,
    ),
    Rule(
        "swish",
        "warning",
        "A Swish runs in integers with Q/DQ behind the Conv, behind its Sigmoid, and behind its Mul.",
        "Add Q/DQ behind the Conv and behind the Sigmoid.",
        _MEASURED,
        onnxruntime_output.outputs("swish"),
        keeps_float=True,
    ),
    Rule(
        "batch-normalization",
        "warning",
        "BatchNormalization is folded into the weights before it.",
        "Fold it when exporting: with per-channel weights that is exact.",
        _MEASURED,
        onnxruntime_output.outputs("batch-normalization"),
        keeps_float=True,
    ),
    Rule(
        "activation",
        "warning",
        "Between a weighted operator and its QuantizeLinear stands no activation but Relu and Clip.",
        "Add Q/DQ between the two.",
        _MEASURED,
        onnxruntime_output.outputs("activation"),
        keeps_float=True,
    ),
    Rule(
        "clipping",
        "warning",
        "A Relu or Clip vanishes where the quantizer behind it has its limits: the zero point is the least integer.",
        "Quantize behind it to uint8 with zero point 0, and a Clip up to its greatest value.",
        _MEASURED,
        onnxruntime_output.outputs("clipping"),
        keeps_float=True,
    ),
    Rule(
        "clipping-behind-add",
        "warning",
        "A Relu or Clip behind an Add or a Mul vanishes, too, only where the quantizer behind it has the same limits.",
        "Quantize behind it to uint8 with zero point 0, and a Clip up to its greatest value.",
        _MEASURED,
        onnxruntime_output.clipped(("Add", "Mul")),
        keeps_float=True,
    ),
    Rule(
        "matmul-bias-relu",
        "warning",
        "A MatMul of more than two dimensions, its bias and a Relu do not become one kernel.",
        "Add Q/DQ between the bias and the Relu, or flatten the input to two dimensions.",
        _MEASURED,
        onnxruntime_output.outputs("matmul-bias-relu"),
        keeps_float=True,
    ),
    Rule(
        "no-output-quantizer",
        "warning",
        "The output of a weighted operator is quantized; only a MatMul, and a Gemm without bias, do without.",
        "Add Q/DQ to its output.",
        _MEASURED,
        onnxruntime_output.outputs("no-quantizer"),
        keeps_float=True,
    ),
    Rule(
        "shared-int8",
        "warning",
        "On x86, an int8 quantizer has one reader: only then it becomes uint8, which the kernels want.",
        "Quantize activations to uint8, or give each reader a QuantizeLinear of its own.",
        _MEASURED,
        onnxruntime_output.shared_int8(_WEIGHTED | _INTEGER),
        keeps_float=True,
    ),
    Rule(
        "partly-quantized",
        "warning",
        "All inputs of an Add, Mul or Concat are quantized.",
        "Add Q/DQ to the other input too.",
        _MEASURED,
        placement.partly_quantized(("Add", "Concat", "Mul")),
        keeps_float=True,
    ),
    Rule(
        "one-sided",
        "info",
        "An operator without weights runs in integers where both its inputs and its output are quantized.",
        "Add Q/DQ to its output, or leave it in float.",
        _MEASURED,
        placement.one_sided(_INTEGER),
        keeps_float=True,
    ),
    Rule(
        "float-operator",
        "info",
        "Between a DequantizeLinear and a QuantizeLinear stand operators that have an integer kernel.",
        "Use GlobalAveragePool for a mean over height and width, put padding into the Conv; others stay float.",
        _MEASURED,
        placement.surrounded(_FLOAT),
        keeps_float=True,
    ),
    Rule(
        "int8-activations",
        "info",
        "On x86, activations are best uint8: zero point 0 after a ReLU, affine elsewhere.",
        "Export for target 'onnxruntime'.",
        _MEASURED,
        onnxruntime_output.int8_activations,
    ),
)
