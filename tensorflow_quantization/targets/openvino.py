"""OpenVINO on a CPU: one uint8 quantizer a tensor that integer kernels read, int8 weights; activations are fused.

Measured with OpenVINO 2026.4 on AVX512-VNNI, and read from what NNCF places.
"""

from tensorflow_quantization.model.op_traits import Trait
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.at_tensors import at_tensors, why_not
from tensorflow_quantization.targets.kernel_rules import KernelRules
from tensorflow_quantization.targets.target import Target

_RULES = KernelRules(
    # Measured: Convolution, GroupConvolution, ConvolutionBackpropData and MatMul run in int8.
    weighted=frozenset(
        {
            "Conv1D",
            "Conv1DTranspose",
            "Conv2D",
            "Conv2DTranspose",
            "Conv3D",
            "Conv3DTranspose",
            "Dense",
            "DepthwiseConv1D",
            "DepthwiseConv2D",
            "EinsumDense",
            "SeparableConv1D",
            "SeparableConv2D",
        }
    ),
    unweighted=frozenset({"Add", "AveragePooling2D", "GlobalAveragePooling2D", "Multiply"}),
    matmuls=Trait.ATTENDS | Trait.MULTIPLIES_TENSORS,
    float_residuals=True,
    # A sum becomes part of the convolution on one of its sides, which adds before it rounds: a quantizer on that side
    # clips, but does not round. So Keras has none; the exporter puts one into the file that lets OpenVINO see the sum,
    # see `export.onnx.passes.bounded_sums`.
    unrounded_sums=True,
    quantized_pooling=True,
    # Measured: an average that goes into a product is rounded to the integers of what was averaged.
    rounding=frozenset({"AveragePooling2D"}),
)

OPENVINO = Target(
    name="openvino",
    place=at_tensors(_RULES),
    activations=QuantizationScheme(signed=False, symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
    # Measured: of two activations in a MatMul the right one has to be int8 and symmetric, the left one to have no zero
    # point; and an attention that it fuses stays in floats if one of queries, keys and values is uint8.
    matmul_operands=QuantizationScheme(narrow_range=False),
    why_not=why_not(_RULES),
)
