"""LiteRT (TensorFlow Lite): integers from end to end, int8 activations with a zero point, int8 weights per channel.

From its 8-bit quantization specification: an operator is an integer kernel only if all its inputs and its output are
integers. The kernels take in batch normalization (as weights) and ReLU; every other activation is a kernel of its own.
"""

from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.target import Target
from tensorflow_quantization.targets.tensors import TensorRules, at_tensors

_RULES = TensorRules(
    weighted=frozenset(
        {
            "Conv1D",
            "Conv2D",
            "Conv2DTranspose",
            "Dense",
            "DepthwiseConv1D",
            "DepthwiseConv2D",
        }
    ),
    unweighted=frozenset(
        {
            "Add",
            "AveragePooling2D",
            # Where no kernel takes it in, a convolution of one pixel, as the other layers that scale channels.
            "BatchNormalization",
            "Concatenate",
            "GlobalAveragePooling1D",
            "GlobalAveragePooling2D",
            "Multiply",
            "Normalization",
            "Rescaling",
            "Subtract",
            "UpSampling2D",
        }
    ),
    fused=frozenset({"relu", "relu6"}),
    not_fusing=frozenset(
        {"AveragePooling2D", "Concatenate", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "UpSampling2D"}
    ),
    outputs=True,
    numbers=True,
    gated=frozenset({"silu"}),
    alone=frozenset({"gelu", "hard_silu", "leaky_relu", "prelu", "relu", "relu6", "sigmoid", "softmax", "tanh"}),
    fixed={"sigmoid": (1 / 256, -128), "softmax": (1 / 256, -128), "tanh": (1 / 128, 0)},
)

LITERT = Target(
    name="litert",
    place=at_tensors(_RULES),
    activations=QuantizationScheme(symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
)
