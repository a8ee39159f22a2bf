"""The rules of TensorRT for an ONNX file with Q/DQ.

They come from NVIDIA's documentation and the ONNX importer, and a test asks the builder of TensorRT for RTX about each.
A rule that this builder does not share speaks of TensorRT 10 and 11 alone and says so. None was measured on a GPU.
"""

from __future__ import annotations

from tensorflow_quantization.inspection.checks import numerics, placement
from tensorflow_quantization.inspection.checks.rule import Rule

_TYPES = "TensorRT documentation, Working with Quantized Types"
_EXPLICIT = "TensorRT documentation, Explicit Quantization"
_PLACEMENT = "TensorRT documentation, Explicit Quantization, Q/DQ Placement Recommendations"
_IMPORTER = "ONNX-TensorRT, Supported ONNX Operators"
_BUILDER = "TensorRT for RTX 1.7, kernels of the built engine"
_ONNX = "ONNX, QuantizeLinear and DequantizeLinear"

#: Operators without weights that have integer kernels, except operators through which TensorRT moves Q/DQ. Sums, global
#: averages and activations become generated kernels that compute in float, with quantizers or without.
_QUANTIZABLE = {"AveragePool"}

#: Operators that compute in integers without Q/DQ.
_INTEGER = {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}

RULES = (
    Rule(
        "implicit-dtype",
        "error",
        "Every quantizer has a zero point of dtype int8: without one ONNX says uint8, and TensorRT builds Int8.",
        "Add an int8 zero point of 0 to the QuantizeLinear.",
        _ONNX,
        numerics.implicit_dtypes,
    ),
    Rule(
        "dtype",
        "error",
        "Quantized values are int8, int4, 8-bit or 4-bit floats: TensorRT rejects uint8, or builds Int8 for it.",
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
        "info",
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
        "warning",
        "Per-channel scales lie along the output channels: Conv 0, ConvTranspose 1, MatMul (K,N) 1, Gemm transB 0.",
        "Quantize the weights with one scale per output channel.",
        _EXPLICIT,
        numerics.wrong_axes(),
        keeps_float=True,
    ),
    Rule(
        "per-channel-activation",
        "warning",
        "Activations are quantized per tensor; only constants can be quantized per channel.",
        "Quantize the activation per tensor.",
        _EXPLICIT,
        numerics.per_channel_activations,
        keeps_float=True,
    ),
    Rule(
        "int4-blocks",
        "info",
        "TensorRT 10 and 11 read INT4 weights in blocks of 64 or 128, says the documentation.",
        "Quantize in blocks of 64 or 128 along the summed axis.",
        _TYPES,
        numerics.odd_blocks((64, 128)),
    ),
    Rule(
        "int4-one-scale",
        "info",
        "INT4 weights have several blocks for each channel. With one scale, they are floats in the engine.",
        "Quantize in smaller blocks along the summed axis.",
        _BUILDER,
        numerics.one_scale_of_int4,
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
        "operator-dtype",
        "error",
        "Operators read no 16-bit or unsigned integers; of uint8 there is a Cast alone, of a model input.",
        "Cast a uint8 input first. Let another input be int32 or float32.",
        _BUILDER,
        numerics.values_other_than(("int16", "uint16", "uint32", "uint64"), only_cast=("uint8",)),
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
        "warning",
        "In TensorRT 10 and 11 the DequantizeLinear of the weights feeds its operator directly.",
        "Store the weights in the operator's own shape and layout, and adapt the axis of the scales.",
        _EXPLICIT,
        placement.weights_not_adjacent(),
    ),
    Rule(
        "half-quantized",
        "warning",
        "All inputs of a weighted operator are quantized, unless its weights are INT4.",
        "Add Q/DQ to the other input, or remove this one.",
        _PLACEMENT,
        placement.half_quantized(weight_only=("int4",)),
        keeps_float=True,
    ),
    Rule(
        "quantized-bias",
        "error",
        "Biases stay float: a DequantizeLinear of int32 is not parsed.",
        "Store the bias in float.",
        _PLACEMENT,
        placement.quantized_biases,
    ),
    Rule(
        "quantizer-inside-fusion",
        "info",
        "In TensorRT 10 and 11 BatchNormalization and ReLU fuse into an operator whose output is not quantized.",
        "Move the Q/DQ after the operator that would fuse.",
        _PLACEMENT,
        placement.quantizers_inside_fusions(("BatchNormalization", "Relu", "Clip")),
    ),
    Rule(
        "residual-conv-branch",
        "info",
        "In TensorRT 10 and 11 an Add fuses into the Conv before it if only the shortcut is quantized.",
        "Remove the Q/DQ between the Conv and the Add, and quantize the shortcut.",
        _PLACEMENT,
        placement.quantizers_on_weighted_branches,
    ),
    Rule(
        "residual-float",
        "warning",
        "The shortcut of a residual sum is quantized, or floats are written for it.",
        "Add Q/DQ to the shortcut.",
        _PLACEMENT,
        placement.float_residuals,
    ),
    Rule(
        "concat-scales",
        "info",
        "TensorRT 10 and 11 move Q/DQ through a Concat only if all inputs have the same scale.",
        "Quantize all inputs with one range.",
        _PLACEMENT,
        placement.unequal_concats,
    ),
    Rule(
        "one-sided",
        "info",
        "An AveragePool runs in integers only if its input and its output are quantized.",
        "Add Q/DQ to its output, or leave it in float.",
        _BUILDER,
        placement.one_sided(_QUANTIZABLE),
    ),
    Rule(
        "average-padding",
        "info",
        "An AveragePool between quantizers runs in integers if it counts its padding, or is 3x3 with stride 1.",
        "Set count_include_pad to 1, which changes nothing if it pads nothing.",
        _BUILDER,
        placement.averages_without_padding,
        keeps_float=True,
    ),
    Rule(
        "transposed-convolution",
        "info",
        "TensorRT has no integer kernel for ConvTranspose: quantized weights are dequantized in every run.",
        "With this library, export for target 'tensorrt', which writes a convolution, or leave it without quantizers.",
        _BUILDER,
        placement.quantized_transposed_convolutions,
        keeps_float=True,
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
