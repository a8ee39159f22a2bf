"""LiteRT (TensorFlow Lite): integers from end to end, int8 activations with a zero point, int8 weights per channel.

From its 8-bit quantization specification: an operator is an integer kernel only if all its inputs and its output are
integers. The kernels take in batch normalization (as weights) and ReLU; every other activation is a kernel of its own.
"""

from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.products import ATTENTION
from tensorflow_quantization.targets.target import Target
from tensorflow_quantization.targets.tensors import SEPARABLE, TensorRules, at_tensors, why_not

#: "Input and outputs must all have same scale/zero_point", says the specification of their kernels.
_ONE_SCALE = frozenset({"AveragePooling1D", "AveragePooling2D", "UpSampling2D"})

#: Where no product's weights take it up, a convolution of one pixel.
_SCALING = frozenset({"BatchNormalization", "Normalization", "Rescaling"})

_RULES = TensorRules(
    weighted=frozenset(
        {
            "Conv1D",
            "Conv2D",
            "Conv2DTranspose",
            "Dense",
            "DepthwiseConv1D",
            "DepthwiseConv2D",
            *SEPARABLE,
        }
    ),
    unweighted=frozenset(
        {
            "Add",
            *_ONE_SCALE,
            "Concatenate",
            "GlobalAveragePooling1D",
            "GlobalAveragePooling2D",
            "Multiply",
            *_SCALING,
            "Subtract",
        }
    ),
    fused=frozenset({"relu", "relu6"}),
    not_fusing=_ONE_SCALE | {"Concatenate", "GlobalAveragePooling1D", "GlobalAveragePooling2D"},
    one_scale=_ONE_SCALE,
    scaling=_SCALING,
    outputs=True,
    numbers=True,
    gated=frozenset({"silu"}),
    alone=frozenset({"gelu", "hard_silu", "leaky_relu", "prelu", "relu", "relu6", "sigmoid", "softmax", "tanh"}),
    floats={
        **dict.fromkeys(
            ("GroupNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization"),
            "computed in floats, as LiteRT has no kernel for it, nor the model integers for what it is made of",
        ),
        **dict.fromkeys(ATTENTION, "exported to LiteRT in floats"),
    },
    fixed={"sigmoid": (1 / 256, -128), "softmax": (1 / 256, -128), "tanh": (1 / 128, 0)},
)

LITERT = Target(
    name="litert",
    place=at_tensors(_RULES),
    activations=QuantizationScheme(symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
    why_not=why_not(_RULES),
)
