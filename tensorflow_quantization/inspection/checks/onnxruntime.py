"""The rules of ONNX Runtime on an x86 CPU: which forms it fuses into integer kernels.

Each rule was measured with ONNX Runtime 1.32, and its test repeats the measurement.
"""

from __future__ import annotations

from tensorflow_quantization.inspection.checks import numerics, onnxruntime_output, placement
from tensorflow_quantization.inspection.checks.rule import Rule

_MEASURED = "Measured: ONNX Runtime 1.32, x86 CPU"
_ONNX = "ONNX, QuantizeLinear and DequantizeLinear"
_OPERATORS = "ONNX Runtime, Operator Kernels"

#: ONNX Runtime moves a DequantizeLinear forward through these operators to a weighted operator. Measured: not through
#: Flatten, Concat, Split and Resize, which need a Q/DQ pair after them, too. A constant Pad fuses into the Conv.
_PASSED = ("Identity", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")

#: Operators without weights and without an integer kernel.
_FLOAT = frozenset(
    {"BatchNormalization", "Div", "Elu", "Erf", "Exp", "Gelu", "GlobalMaxPool", "GroupNormalization", "HardSigmoid"}
    | {"HardSwish", "InstanceNormalization", "LayerNormalization", "Log", "Max", "Min", "Mish", "Neg", "PRelu", "Pad"}
    | {"Pow", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Selu", "Softplus", "Sqrt", "Sub", "Swish"}
    | {"Tanh"}
)

#: Operators without weights that have an integer kernel if inputs and output are quantized.
_INTEGER = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax"})

_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})

#: Operators whose integer kernel reads integers only.
_MERGING = ("Add", "Concat", "Mul")

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
        numerics.mismatched_pairs_within,
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
        "error",
        "Per-channel scales lie along the output channels, Conv 0, MatMul (K,N) 1, Gemm transB 0: others stay float, "
        "fail to run, or return wrong numbers.",
        "Quantize the weights with one scale per output channel.",
        "Measured: QLinearConv and MatMulIntegerToFloat use any scales as scales of the output channels",
        numerics.wrong_axes(("Conv", "Gemm", "MatMul")),
        keeps_float=True,
    ),
    Rule(
        "unknown-operator",
        "error",
        "ONNX Runtime knows ONNX' operators and its own.",
        "Replace it by ONNX operators, or register a custom operator library.",
        _OPERATORS,
        numerics.unknown_operators(("ai.onnx.ml", "ai.onnx.training", "com.microsoft", "com.microsoft.nchwc")),
    ),
    Rule(
        "bias-scale",
        "warning",
        "The scale of an integer bias of a Conv is input scale times weight scale.",
        "Store the bias in float; ONNX Runtime quantizes it.",
        _MEASURED,
        numerics.bias_off_scale(("Conv",)),
        keeps_float=True,
    ),
    Rule(
        "gemm-bias-scale",
        "error",
        "The scale of an integer bias of a Gemm is input scale times weight scale, or results are wrong.",
        "Store the bias in float; ONNX Runtime quantizes it.",
        "Measured: QGemm adds the integers of the bias and ignores their scale",
        numerics.bias_off_scale(("Gemm",)),
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
        "To run it in integers, quantize its input, weights and output.",
        _MEASURED,
        placement.left_in_float,
        keeps_float=True,
    ),
    Rule(
        "float-input",
        "warning",
        "Both factors of a weighted operator are quantized directly before it.",
        "Add Q/DQ after the operator that computes the input.",
        _MEASURED,
        placement.float_inputs,
        keeps_float=True,
    ),
    Rule(
        "weights-in-blocks",
        "info",
        "Weights in blocks are expanded while they are multiplied by floats, which the kernel may round to 8 bits.",
        "To compute in integers of 8 bits without a scale per block, quantize without blocks.",
        _MEASURED,
        placement.weights_in_blocks,
        keeps_float=True,
    ),
    Rule(
        "float-weights",
        "warning",
        "Between integers, ONNX Runtime quantizes float weights, with one scale for all channels.",
        "Store the weights as int8 with a DequantizeLinear and one scale per output channel. To keep them in float, "
        "put a Max with the lowest float before the operator.",
        _MEASURED,
        placement.float_weights,
    ),
    Rule(
        "input-adjacent",
        "warning",
        f"Between an input's DequantizeLinear and a weighted operator stand only {', '.join(_PASSED)}.",
        "Add Q/DQ with the same scale after the operator in between.",
        _MEASURED,
        placement.inputs_not_adjacent(_PASSED),
        keeps_float=True,
    ),
    Rule(
        "weight-adjacent",
        "warning",
        "The DequantizeLinear of the weights feeds its operator directly, or through a Transpose.",
        "Store the weights in the operator's own shape, and adapt the axis of the scales.",
        _MEASURED,
        placement.weights_not_adjacent(("Identity", "Transpose", "Cast")),
        keeps_float=True,
    ),
    Rule(
        "activation-dtype",
        "warning",
        "Activations are uint8 or int8.",
        "Quantize to uint8: zero point 0 after a ReLU, asymmetric elsewhere.",
        _MEASURED,
        numerics.factors_other_than(("uint8", "int8"), weights=False),
        keeps_float=True,
    ),
    Rule(
        "weight-dtype",
        "warning",
        "Weights are int8 or uint8.",
        "Quantize the weights to int8.",
        _MEASURED,
        numerics.factors_other_than(("uint8", "int8"), weights=True),
        keeps_float=True,
    ),
    Rule(
        "scale-dtype",
        "warning",
        "Scales are float32, and so are the values between the quantizers.",
        "Export in float32 for this runtime.",
        _MEASURED,
        numerics.scales_other_than(("float32",)),
        keeps_float=True,
    ),
    Rule(
        "per-channel-activation",
        "warning",
        "Activations are quantized per tensor.",
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
        "The alpha and beta of a Gemm are 1, and its bias is a vector.",
        "Multiply the weights by alpha and the bias by beta, and make the bias a vector.",
        _MEASURED,
        onnxruntime_output.gemm_forms,
        keeps_float=True,
    ),
    Rule(
        "graph-output",
        "warning",
        "A tensor between a weighted operator and its QuantizeLinear is not an output of the graph.",
        "Quantize it, and make the output of the DequantizeLinear the output of the graph.",
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
        "A Swish runs in integers only with Q/DQ after the Conv, after its Sigmoid and after its Mul.",
        "Add Q/DQ after the Conv and after the Sigmoid.",
        _MEASURED,
        onnxruntime_output.outputs("swish"),
        keeps_float=True,
    ),
    Rule(
        "batch-normalization",
        "warning",
        "BatchNormalization is folded into the weights before it.",
        "Fold it into the weights; with per-channel scales the fold is exact.",
        _MEASURED,
        onnxruntime_output.outputs("batch-normalization"),
        keeps_float=True,
    ),
    Rule(
        "activation",
        "warning",
        "Relu and Clip are the only activations between a weighted operator and its QuantizeLinear.",
        "Add Q/DQ between the two.",
        _MEASURED,
        onnxruntime_output.outputs("activation"),
        keeps_float=True,
    ),
    Rule(
        "clipping",
        "warning",
        "The quantizer after a Relu or Clip saturates at its limits: after a Relu, zero point is the least integer.",
        "After it, quantize to uint8 with zero point 0; after a Clip, up to its upper limit.",
        _MEASURED,
        onnxruntime_output.outputs("clipping"),
        keeps_float=True,
    ),
    Rule(
        "clipping-behind-add",
        "warning",
        "The quantizer after an Add or Mul and its Relu or Clip saturates at the limits of the Relu or Clip.",
        "After it, quantize to uint8 with zero point 0; after a Clip, up to its upper limit.",
        _MEASURED,
        onnxruntime_output.clipped(("Add", "Mul")),
        keeps_float=True,
    ),
    Rule(
        "matmul-bias-relu",
        "warning",
        "A MatMul with more than two dimensions does not fuse with both its bias and a Relu.",
        "Add Q/DQ between the bias and the Relu, or flatten the input to two dimensions.",
        _MEASURED,
        onnxruntime_output.outputs("matmul-bias-relu"),
        keeps_float=True,
    ),
    Rule(
        "no-output-quantizer",
        "warning",
        "The output of a weighted operator is quantized, except for a MatMul, and a Gemm without bias.",
        "Add Q/DQ to its output.",
        _MEASURED,
        onnxruntime_output.outputs("no-quantizer"),
        keeps_float=True,
    ),
    Rule(
        "shared-int8",
        "warning",
        "On x86, an int8 quantizer has one reader: kernels need uint8, and only such a quantizer becomes uint8.",
        "Quantize activations to uint8, or insert a separate QuantizeLinear for each reader.",
        _MEASURED,
        onnxruntime_output.shared_int8(_WEIGHTED | _INTEGER),
        keeps_float=True,
    ),
    Rule(
        "partly-quantized",
        "warning",
        "All inputs of an Add, Mul or Concat are quantized.",
        "Add Q/DQ to the other input, too.",
        _MEASURED,
        placement.partly_quantized(_MERGING, within=False),
        keeps_float=True,
    ),
    Rule(
        "float-operand",
        "info",
        "An Add, Mul or Concat of integers and a constant, or of a float of its own layer, runs in float.",
        "To run it in integers, make each of its operators a layer.",
        _MEASURED,
        placement.partly_quantized(_MERGING, within=True),
        keeps_float=True,
    ),
    Rule(
        "one-sided",
        "info",
        "An operator without weights runs in integers only if its inputs and its output are quantized.",
        "Add Q/DQ to its output, or leave it in float.",
        _MEASURED,
        placement.one_sided(_INTEGER),
        keeps_float=True,
    ),
    Rule(
        "float-operator",
        "info",
        "An operator between DequantizeLinear and QuantizeLinear has an integer kernel.",
        "Use GlobalAveragePool for a mean over height and width, and the pads of a Conv for a Pad; others stay float.",
        _MEASURED,
        placement.surrounded(_FLOAT),
        keeps_float=True,
    ),
    Rule(
        "int8-activations",
        "info",
        "On x86, uint8 is best for activations: zero point 0 after a ReLU, asymmetric elsewhere.",
        "Export for target 'onnxruntime'.",
        _MEASURED,
        onnxruntime_output.int8_activations,
    ),
)
