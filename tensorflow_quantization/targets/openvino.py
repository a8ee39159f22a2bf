"""OpenVINO on a CPU: one uint8 quantizer a tensor that integer kernels read, int8 weights; activations are fused.

A residual sum becomes part of the convolution on its one side, which adds before it rounds: a quantizer on that side is
clipped to but not rounded to (seen in OpenVINO 2026.4). So there is none in Keras; the exporter puts one into the file
that does nothing but let OpenVINO see the sum, see `export.passes.bounded_sums`.
"""

from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.products import ATTENTION, PRODUCTS
from tensorflow_quantization.targets.target import Target
from tensorflow_quantization.targets.tensors import SEPARABLE, TensorRules, at_tensors, why_not

_RULES = TensorRules(
    weighted=frozenset(
        {
            *(f"Conv{rank}D{suffix}" for rank in (1, 2, 3) for suffix in ("", "Transpose")),
            "DepthwiseConv1D",
            "DepthwiseConv2D",
            "Dense",
            "EinsumDense",
            *SEPARABLE,
        }
    ),
    unweighted=frozenset({"Add", "AveragePooling2D", "GlobalAveragePooling2D", "Multiply"}),
    attention=ATTENTION,
    products=PRODUCTS,
    float_sums=True,
    fused=frozenset(),
    outputs=False,
    fused_sums=True,
    pooled=True,
    # Measured: an average that goes into a product is rounded to the integers of what was averaged.
    rounding=frozenset({"AveragePooling2D"}),
)

OPENVINO = Target(
    name="openvino",
    place=at_tensors(_RULES),
    activations=QuantizationScheme(signed=False, symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
    # Measured: of two activations in a MatMul the right one has to be int8 and symmetric, the left one to have no zero
    # point; and what it fuses an attention to stays float if one of queries, keys and values is uint8.
    factors=QuantizationScheme(narrow_range=False),
    why_not=why_not(_RULES),
)
