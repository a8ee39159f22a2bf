"""ONNX Runtime on a CPU: uint8 activations, int8 weights, whole chains between DequantizeLinear and QuantizeLinear.

Measured with ONNX Runtime 1.32 on AVX512-VNNI. Its optimizer fuses a chain into an integer kernel only if a
DequantizeLinear writes every input and a QuantizeLinear reads every output.
"""

from tensorflow_quantization.model.activations import Activation
from tensorflow_quantization.model.fusion import KernelFusion
from tensorflow_quantization.model.op_traits import Trait
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.at_tensors import at_tensors, why_not
from tensorflow_quantization.targets.kernel_rules import RECURRENT, KernelRules
from tensorflow_quantization.targets.target import BlockRule, Target

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
    # Computed in float. The form with integers, DynamicQuantizeLSTM, takes its scales from each batch.
    stored=RECURRENT,
    # QLinearAdd, QLinearAveragePool, QLinearConcat, QLinearGlobalAveragePool and QLinearMul.
    unweighted=frozenset({"Add", "AveragePooling2D", "Concatenate", "GlobalAveragePooling2D", "Multiply"}),
    binary=frozenset({"Add", "Multiply"}),
    matmuls=Trait.ATTENDS | Trait.MULTIPLIES_TENSORS,
    # The optimizer removes a Relu or Clip before QuantizeLinear if the zero point is the lowest integer.
    fusion=KernelFusion(activations=frozenset({Activation.RELU, Activation.RELU6})),
    # Q/DQ around Sigmoid and Mul become QLinearSigmoid and QLinearMul.
    gated=frozenset({Activation.SILU}),
    quantized_outputs=True,
    # Without a QuantizeLinear after it, MatMul becomes MatMulIntegerToFloat.
    float_matmul_outputs=True,
    float_residuals=True,
)

ONNXRUNTIME = Target(
    name="onnxruntime",
    place=at_tensors(_RULES),
    # The zero point after a ReLU is the lowest integer only with asymmetric uint8.
    activations=QuantizationScheme(signed=False, symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
    why_not=why_not(_RULES),
    joins_with_one_scale=True,
    recurrent_weights=True,
    # A MatMul of such weights becomes MatMulNBits.
    blocks=BlockRule(partial=True),
)
