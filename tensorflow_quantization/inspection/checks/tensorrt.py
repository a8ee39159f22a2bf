"""The rules of TensorRT 10 and 11 for an ONNX file with Q/DQ.

They come from NVIDIA's documentation and the ONNX importer. None was measured on a GPU.
"""

from __future__ import annotations

from tensorflow_quantization.inspection.checks import numerics, placement
from tensorflow_quantization.inspection.checks.rule import Rule
from tensorflow_quantization.onnx_graph.operators import ACTIVATIONS

_TYPES = "TensorRT documentation, Working with Quantized Types"
_EXPLICIT = "TensorRT documentation, Explicit Quantization"
_PLACEMENT = "TensorRT documentation, Explicit Quantization, Q/DQ Placement Recommendations"
_IMPORTER = "ONNX-TensorRT, Supported ONNX Operators"
_ONNX = "ONNX, QuantizeLinear and DequantizeLinear"

#: Operators without weights that have integer kernels, except operators through which TensorRT moves Q/DQ.
_QUANTIZABLE = {"Add", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Mul", "ReduceMean", "Sub"} | ACTIVATIONS

#: Operators that compute in integers without Q/DQ.
_INTEGER = {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}

RULES = (
    Rule(
        "implicit-dtype",
        "error",
        "Every quantizer has an explicit zero point of dtype int8.",
        "Add an int8 zero point of 0 to the QuantizeLinear.",
        _ONNX,
        numerics.implicit_dtypes,
    ),
    Rule(
        "dtype",
        "error",
        "Quantized values are int8, int4, 8-bit or 4-bit floats; uint8 is rejected.",
        "Quantize symmetrically to int8; with this library, export for target 'tensorrt'.",
        _TYPES,
        numerics.dtypes_other_than(("int8", "int4", "float8e4m3fn", "float4e2m1")),
    ),
    Rule(
        "zero-point",
        "error",
        "Quantization is symmetric: every zero point is 0.",
        "Quantize symmetrically to int8.",
        _TYPES,
        numerics.nonzero_zero_points,
    ),
    Rule(
        "scale",
        "error",
        "Scales are positive, finite constants.",
        "Store the scale as a constant, or calibrate the range that it comes from.",
        _EXPLICIT,
        numerics.bad_scales,
    ),
    Rule(
        "pair-mismatch",
        "warning",
        "A QuantizeLinear and its DequantizeLinear have the same scale, zero point and dtype.",
        "Use the same constants in both.",
        _EXPLICIT,
        numerics.mismatched_pairs,
    ),
    Rule(
        "opset",
        "error",
        "The opset supports the quantizers: 13 per-channel scales, 19 FP8, 21 INT4.",
        "Write the file with a newer opset.",
        _ONNX,
        numerics.opset_too_old,
    ),
    Rule(
        "weight-axis",
        "error",
        "Per-channel scales lie along the output channels: Conv 0, ConvTranspose 1, MatMul (K,N) 1, Gemm transB 0.",
        "Quantize the weights with one scale per output channel.",
        _EXPLICIT,
        numerics.wrong_axes(),
    ),
    Rule(
        "per-channel-activation",
        "error",
        "Activations are quantized per tensor; only constants can be quantized per channel.",
        "Quantize the activation per tensor.",
        _EXPLICIT,
        numerics.per_channel_activations,
        keeps_float=True,
    ),
    Rule(
        "int4-blocks",
        "error",
        "INT4 weights come in blocks of 64 or 128.",
        "Quantize in blocks of 64 or 128 along the summed axis.",
        _TYPES,
        numerics.odd_blocks((64, 128)),
    ),
    Rule(
        "integer-operator",
        "error",
        "Integer operators are not supported, only float operators between Q/DQ.",
        "Replace it by DequantizeLinear, the float operator and QuantizeLinear.",
        _IMPORTER,
        numerics.operators(_INTEGER),
    ),
    Rule(
        "unknown-operator",
        "error",
        "The importer knows ONNX' own operators. Any other operator needs a plugin.",
        "Replace it by ONNX operators, or register a TensorRT plugin of this name.",
        _IMPORTER,
        numerics.unknown_operators(("trt.plugins",)),
    ),
    Rule(
        "weight-adjacent",
        "error",
        "The DequantizeLinear of the weights feeds its operator directly.",
        "Store the weights in the operator's own shape and layout, and adapt the axis of the scales.",
        _EXPLICIT,
        placement.weights_not_adjacent(),
        keeps_float=True,
    ),
    Rule(
        "half-quantized",
        "warning",
        "All inputs of a weighted operator are quantized.",
        "Add Q/DQ to the other input, or remove this one.",
        _PLACEMENT,
        placement.half_quantized(),
        keeps_float=True,
    ),
    Rule(
        "quantized-bias",
        "warning",
        "Biases stay float.",
        "Store the bias in float.",
        _PLACEMENT,
        placement.quantized_biases,
    ),
    Rule(
        "quantizer-inside-fusion",
        "warning",
        "Outputs of weighted operators are not quantized: BatchNormalization and ReLU fuse into them.",
        "Move the Q/DQ after the operator that would fuse.",
        _PLACEMENT,
        placement.quantizers_inside_fusions(("BatchNormalization", "Relu", "Clip")),
    ),
    Rule(
        "residual-conv-branch",
        "warning",
        "Only the shortcut of an Add is quantized: the Add fuses into the Conv that computes the other input.",
        "Remove the Q/DQ between the Conv and the Add, and quantize the shortcut.",
        _PLACEMENT,
        placement.quantizers_on_weighted_branches,
    ),
    Rule(
        "residual-float",
        "warning",
        "The shortcut of a residual sum is quantized, or the fused Conv and Add write floats.",
        "Add Q/DQ to the shortcut.",
        _PLACEMENT,
        placement.float_residuals,
    ),
    Rule(
        "concat-scales",
        "warning",
        "All inputs of a Concat have the same scale, or TensorRT cannot move Q/DQ through the Concat.",
        "Quantize all inputs with one range.",
        _PLACEMENT,
        placement.unequal_concats,
    ),
    Rule(
        "one-sided",
        "info",
        "An operator without weights runs in integers only if its inputs and its output are quantized.",
        "Add Q/DQ to its output, or leave it in float.",
        _PLACEMENT,
        placement.one_sided(_QUANTIZABLE),
    ),
    Rule(
        "shared-dequantizer",
        "info",
        "A separate Q/DQ pair for each reader fuses most reliably.",
        "Insert a separate pair for each reader.",
        _PLACEMENT,
        placement.shared_dequantizers,
    ),
    Rule(
        "not-quantized",
        "info",
        "An operator without Q/DQ runs in its float dtype.",
        "To run it in integers, quantize its input and weights.",
        _EXPLICIT,
        placement.left_in_float,
        keeps_float=True,
    ),
    Rule(
        "no-quantizers",
        "warning",
        "TensorRT runs only operators between Q/DQ in integers.",
        "Quantize the model before exporting it.",
        _EXPLICIT,
        placement.nothing_quantized,
    ),
)
