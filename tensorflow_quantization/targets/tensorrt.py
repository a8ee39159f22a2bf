"""TensorRT 10 and 11: a separate Q/DQ pair before each input of an INT8 or FP8 kernel; symmetric, zero point 0.

Sources: NVIDIA's documentation, "Working with Quantized Types", and its ONNX importer. What was measured with the
engine of TensorRT for RTX says so.
"""

from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.at_inputs import at_inputs
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.structure import (
    layer_normalization_input,
    max_pooling_input,
    multiply_inputs,
    normalized_parts,
    sum_inputs,
)
from tensorflow_quantization.targets.table import LayerRule
from tensorflow_quantization.targets.target import BlockRule, Target

#: "Quantize all inputs of weighted operations", and not their outputs.
_WEIGHTED = (
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
)
#: Pools with an integer kernel that has to read and to write integers. Measured by the engine of TensorRT for RTX 1.7:
#: floats read and written by DenseNet121 at 64 pixels fall from 6.1 to 4.9 MB, integers rise from 4.0 to 4.2 MB.
_LOCAL_POOLING = ("AveragePooling2D", "MaxPooling2D")
_POOLING = (
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
)

_SEPARABLE = dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), LayerRule(pointwise_input=True))

#: FP8: products and convolutions, and the shortcuts of residual sums, which are in FP8 for a convolution anyway.
#: Measured by the engine of TensorRT for RTX 1.7: they run in FP8, with one scale per output channel, too. Pools,
#: squeeze-and-excite products and transposed convolutions compute in float.
_FLOAT8 = Target(
    name="tensorrt",
    place=at_inputs(
        table={**{name: LayerRule() for name in _WEIGHTED if not name.endswith("Transpose")}, **_SEPARABLE},
        structure=(sum_inputs,),
        reason=Reason(ReasonCode.DEFAULT, "runs in FP8"),
    ),
    activations=QuantizationScheme(floating=True),
    weights=QuantizationScheme(floating=True),
)

TENSORRT = Target(
    name="tensorrt",
    place=at_inputs(
        table={
            **dict.fromkeys(_WEIGHTED, LayerRule()),
            **_SEPARABLE,
            **dict.fromkeys(_POOLING, LayerRule(weights=False)),
        },
        # "Quantize the residual input in skip connections"; squeeze-and-excite products; a normalization that is not
        # folded; and max pooling, which commutes with Q/DQ. A LayerNormalization after a convolution, measured: else a
        # kernel of its own moves the axes of floats, and ConvNeXtTiny has 153 MB of them, not 119. One after another:
        # else each has its own kernel, and SegFormer has 165 kernels, not 162. What a normalized concatenation joins,
        # and not the concatenation: DenseNet121 has 56 MB of floats and 14.4 dB, not 71 and 13.4.
        structure=(
            sum_inputs,
            multiply_inputs,
            normalized_parts,
            layer_normalization_input,
            max_pooling_input,
        ),
        outputs=_LOCAL_POOLING,
    ),
    # Activations may use -128, where the runtime saturates; weights stay within -127 to 127.
    activations=QuantizationScheme(narrow_range=False),
    weights=QuantizationScheme(),
    float8=_FLOAT8,
    # Measured by the engine of TensorRT for RTX 1.7: weights of 8 bits in blocks are floats in the engine, and a file
    # with a shorter last block is not parsed.
    blocks=BlockRule(bits=frozenset({4})),
)
