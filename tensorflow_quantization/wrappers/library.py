"""The wrappers that come with the package, one a layer class.

Which of them `quantize_model` uses unasked is the target's business (`targets/`), not theirs.
"""

from tensorflow_quantization.wrappers.base import NonWeightedBaseQuantizeWrapper, WeightedBaseQuantizeWrapper

_DEPTHWISE = "depthwise_kernel"
_SEPARABLE = (_DEPTHWISE, "pointwise_kernel")


class DenseQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.Dense`."""


class EinsumDenseQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.EinsumDense`."""


class Conv1DQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.Conv1D`."""


class Conv2DQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.Conv2D`."""


class Conv3DQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.Conv3D`."""


class DepthwiseConv1DQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.DepthwiseConv1D`."""

    def __init__(self, layer, kernel_type=_DEPTHWISE, **kwargs):
        super().__init__(layer, kernel_type=kernel_type, **kwargs)


class DepthwiseConv2DQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.DepthwiseConv2D`."""

    def __init__(self, layer, kernel_type=_DEPTHWISE, **kwargs):
        super().__init__(layer, kernel_type=kernel_type, **kwargs)


class SeparableConv1DQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.SeparableConv1D`: both kernels; what flows between them stays float."""

    def __init__(self, layer, kernel_type=_SEPARABLE, **kwargs):
        super().__init__(layer, kernel_type=tuple(kernel_type), **kwargs)


class SeparableConv2DQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.SeparableConv2D`: both kernels; what flows between them stays float."""

    def __init__(self, layer, kernel_type=_SEPARABLE, **kwargs):
        super().__init__(layer, kernel_type=tuple(kernel_type), **kwargs)


class Conv1DTransposeQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.Conv1DTranspose`."""


class Conv2DTransposeQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.Conv2DTranspose`."""


class Conv3DTransposeQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """`keras.layers.Conv3DTranspose`."""


class AveragePooling2DQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
    """`keras.layers.AveragePooling2D`."""


class GlobalAveragePooling2DQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
    """`keras.layers.GlobalAveragePooling2D`."""


class MaxPooling2DQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
    """`keras.layers.MaxPooling2D`."""


class BatchNormalizationQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
    """`keras.layers.BatchNormalization`."""


class ConcatenateQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
    """`keras.layers.Concatenate`."""


class AddQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
    """`keras.layers.Add`."""


class MultiplyQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
    """`keras.layers.Multiply`."""
