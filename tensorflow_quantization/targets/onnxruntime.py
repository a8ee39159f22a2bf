"""ONNX Runtime on a CPU: whole chains between QuantizeLinear and DequantizeLinear, uint8 activations, int8 weights.

Measured with ONNX Runtime 1.32 on AVX512-VNNI. Its optimizer makes an integer kernel of a group only if every input is
dequantized and every output quantized.
"""

from tensorflow_quantization.model.activations import Activation
from tensorflow_quantization.model.fusion import KernelFusion
from tensorflow_quantization.model.op_traits import Trait
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.at_tensors import at_tensors, why_not
from tensorflow_quantization.targets.kernel_rules import KernelRules
from tensorflow_quantization.targets.target import Target

_RULES = KernelRules(
    # QLinearConv, QGemm and QLinearMatMul. There is no integer ConvTranspose.
    weighted=frozenset(
        {
            "Conv1D",
            "Conv2D",
            "Conv3D",
            "Dense",
            "DepthwiseConv1D",
            "DepthwiseConv2D",
            "EinsumDense",
            "SeparableConv1D",
            "SeparableConv2D",
        }
    ),
    # QLinearAdd, QLinearAveragePool, QLinearConcat, QLinearGlobalAveragePool and QLinearMul.
    unweighted=frozenset({"Add", "AveragePooling2D", "Concatenate", "GlobalAveragePooling2D", "Multiply"}),
    matmuls=Trait.ATTENDS | Trait.MULTIPLIES_TENSORS,
    # A Relu or Clip before QuantizeLinear disappears if the zero point is the least integer.
    fusion=KernelFusion(activations=frozenset({Activation.RELU, Activation.RELU6})),
    # With Q/DQ around Sigmoid and Mul: QLinearSigmoid and QLinearMul.
    gated=frozenset({Activation.SILU}),
    quantized_outputs=True,
    # MatMulIntegerToFloat.
    float_matmul_outputs=True,
    float_residuals=True,
)

ONNXRUNTIME = Target(
    name="onnxruntime",
    place=at_tensors(_RULES),
    # Only an affine uint8 has its zero point at the least integer after a ReLU.
    activations=QuantizationScheme(signed=False, symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
    why_not=why_not(_RULES),
)
