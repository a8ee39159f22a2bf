"""LiteRT (TensorFlow Lite): int8 activations with a zero point, int8 weights per channel, integers in every operator.

Source: its 8-bit quantization specification (ai.google.dev/edge/litert/conversion/tensorflow/quantization/
quantization_spec). An operator runs in integers only if all its inputs and its output are integers.
"""

from dataclasses import replace

from tensorflow_quantization.model.activations import Activation
from tensorflow_quantization.model.fusion import KernelFusion
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.scheme import WIDE_BITS
from tensorflow_quantization.targets.at_tensors import at_tensors, why_not
from tensorflow_quantization.targets.kernel_rules import RECURRENT, KernelRules
from tensorflow_quantization.targets.target import Target

#: Specification: "Input and outputs must all have same scale/zero_point".
_SAME_SCALE = frozenset(
    {
        "AdaptiveAveragePooling1D",
        "AdaptiveAveragePooling2D",
        "AveragePooling1D",
        "AveragePooling2D",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "Resizing",
        "UpSampling2D",
    }
)
#: The same holds for these, of all inputs.
_SELECTIONS = frozenset({"Clip", "Concatenate", "Maximum", "Minimum", "Stack", "Where"})
_GLOBAL_POOLING = frozenset({"GlobalAveragePooling1D", "GlobalAveragePooling2D"})

#: From the schema: `fused_activation_function` of an operator.
FUSION = KernelFusion(
    activations=frozenset({Activation.RELU, Activation.RELU6}),
    without_activation=_SAME_SCALE | _GLOBAL_POOLING | _SELECTIONS,
    scalings=True,
    separates_axes=True,
)

RULES = KernelRules(
    weighted=frozenset(
        {
            "Conv1D",
            "Conv1DTranspose",
            "Conv2D",
            "Conv2DTranspose",
            "Dense",
            "DepthwiseConv1D",
            "DepthwiseConv2D",
            "EinsumDense",
            "SeparableConv1D",
            "SeparableConv2D",
        }
    ),
    unweighted=frozenset(
        {
            "Add",
            "Average",
            "Multiply",
            "Negative",
            "Subtract",
            *_SELECTIONS,
            *_SAME_SCALE,
            *_GLOBAL_POOLING,
            # Not folded into weights, each of these becomes a 1x1 convolution.
            "BatchNormalization",
            "Normalization",
            "Rescaling",
        }
    ),
    # Computed in float, step by step.
    stored=RECURRENT,
    projections=True,
    matrices_only=True,
    fusion=FUSION,
    gated=frozenset({Activation.SILU}),
    # Not fused, each of these is a separate operator with an integer kernel.
    activations=frozenset(
        {
            Activation.GELU,
            Activation.HARD_SIGMOID,
            Activation.HARD_SILU,
            Activation.LEAKY_RELU,
            Activation.PRELU,
            Activation.RELU,
            Activation.RELU6,
            Activation.SIGMOID,
            Activation.SOFTMAX,
            Activation.TANH,
        }
    ),
    constant_operands=True,
    pairs=frozenset({"Average"}),
    binary=frozenset({"Add", "Multiply"}),
    float_only={
        **dict.fromkeys(
            ("GroupNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization"),
            "computed in float: LiteRT has no kernel for it, and its parts have no quantizers",
        ),
        "Attention": "exported to LiteRT in float",
    },
    # Specification: LOGISTIC, SOFTMAX and TANH restrict the scale and zero point of their output.
    fixed_ranges={
        # Not of the specification: with this scale, the two operators of `hard_sigmoid` round once.
        Activation.HARD_SIGMOID: (1 / 255, -128),
        Activation.SIGMOID: (1 / 256, -128),
        Activation.SOFTMAX: (1 / 256, -128),
        Activation.TANH: (1 / 128, 0),
    },
    same_scale=_SAME_SCALE,
    quantized_outputs=True,
)

#: Classes whose kernel for activations of 16 bits is missing, or not exact.
_EXACT_IN_8_BITS = frozenset(
    {"AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "Average", "Resizing", "UpSampling2D", "Where"}
)
#: With activations of 16 bits. Source: "Full integer quantization of weights and int16 activations"
#: (ai.google.dev/edge/litert/conversion/tensorflow/quantization) and the kernels of ai-edge-litert.
WIDE_RULES = replace(
    RULES,
    unweighted=RULES.unweighted - _EXACT_IN_8_BITS,
    float_only={
        **RULES.float_only,
        **dict.fromkeys(_EXACT_IN_8_BITS, "computed in float: LiteRT has no exact kernel for 16 bits"),
    },
    same_scale=_SAME_SCALE - _EXACT_IN_8_BITS,  # in float, they read what another kernel writes in integers
    joins_known_sizes=True,
    gated=frozenset(),
    activations=frozenset({Activation.LEAKY_RELU, Activation.RELU, Activation.RELU6}),
    equal_shapes=frozenset({"Add", "Subtract"}),
    fixed_ranges={},
)

_EIGHT_BITS = Target(
    name="litert",
    place=at_tensors(RULES),
    activations=QuantizationScheme(symmetric=False, narrow_range=False),
    weights=QuantizationScheme(),
    why_not=why_not(RULES),
    joins_with_one_scale=True,
    recurrent_weights=True,
    learned_weights=False,
    bits=frozenset({8}),
    float32_only="LiteRT",
)
_WIDE = replace(
    _EIGHT_BITS,
    place=at_tensors(WIDE_RULES),
    activations=QuantizationScheme(bits=WIDE_BITS, narrow_range=False),
    why_not=why_not(WIDE_RULES),
    bits=frozenset({8, WIDE_BITS}),
)
LITERT = replace(_EIGHT_BITS, wide=_WIDE)
