"""ONNX Runtime on a CPU: whole chains between QuantizeLinear and DequantizeLinear, uint8 activations, int8 weights.

Its optimizer makes an integer kernel of a group only if every input is dequantized and every output quantized; a ReLU
before QuantizeLinear disappears only if the zero point is the least integer, which affine uint8 gives it.
"""

from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.products import ATTENTION, PRODUCTS
from tensorflow_quantization.targets.target import Target
from tensorflow_quantization.targets.tensors import SEPARABLE, TensorRules, at_tensors, why_not

_RULES = TensorRules(
    weighted=frozenset(
        {"Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense", "EinsumDense", *SEPARABLE}
    ),
    unweighted=frozenset(
        {
            "Add",
            "AveragePooling2D",
            "Concatenate",
            "GlobalAveragePooling2D",
            "Multiply",
        }
    ),
    attention=ATTENTION,
    products=PRODUCTS,
    fused=frozenset({"relu", "relu6"}),
    outputs=True,
    float_products=True,
    float_sums=True,
    gated=frozenset({"silu"}),
)

ONNXRUNTIME = Target(
    name="onnxruntime",
    place=at_tensors(_RULES),
    activations=QuantizationScheme(signed=False, symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
    why_not=why_not(_RULES),
)
