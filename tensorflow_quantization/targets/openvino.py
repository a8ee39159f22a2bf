"""OpenVINO on a CPU: one uint8 quantizer for each tensor that integer kernels read, int8 weights, fused activations.

Measured with OpenVINO 2026.4 on AVX512-VNNI, and compared with the quantizers that NNCF places.
"""

from tensorflow_quantization.model.op_traits import Trait
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.at_tensors import at_tensors, why_not
from tensorflow_quantization.targets.kernel_rules import RECURRENT, KernelRules
from tensorflow_quantization.targets.target import BlockRule, Target

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
    # Computed in float: OpenVINO does not load an LSTM with quantized sequences and states.
    stored=RECURRENT,
    unweighted=frozenset({"Add", "AveragePooling2D", "GlobalAveragePooling2D", "Multiply"}),
    matmuls=Trait.ATTENDS | Trait.MULTIPLIES_TENSORS,
    float_residuals=True,
    # A convolution that computes one operand of an Add fuses the Add, and adds before it rounds: OpenVINO clips at a
    # quantizer on this operand, but does not round. So Keras has no quantizer there. The exporter writes one, because
    # OpenVINO does not fuse without it if shapes are fixed, see `export.onnx.passes.openvino.bounded_sums`.
    unrounded_sums=True,
    quantized_pooling=True,
    # Measured: an average that a product reads is rounded to the integers of the pooling's input.
    rounding=frozenset({"AveragePooling2D"}),
)

OPENVINO = Target(
    name="openvino",
    place=at_tensors(_RULES),
    activations=QuantizationScheme(signed=False, symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
    # Measured: in a MatMul of two activations, the right operand must be symmetric int8 and the left operand must have
    # zero point 0. Fused attention stays in float if queries, keys or values are uint8.
    matmul_operands=QuantizationScheme(narrow_range=False),
    why_not=why_not(_RULES),
    joins_with_one_scale=True,
    recurrent_weights=True,
    # Measured: a FullyConnected expands such weights. OpenVINO does not load a file with a shorter last block.
    blocks=BlockRule(),
)
