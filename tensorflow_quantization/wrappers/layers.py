"""The wrappers that come with the package, one a layer class.

Which of them `quantize_model` uses unasked is the target's business (`targets/`), not theirs.
"""

from __future__ import annotations

import keras

from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme
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


class ActivationQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
    """`keras.layers.Activation`.

    Args:
        layer: the layer to wrap.
        gate_scheme: for SiLU, x * sigmoid(x): the integers of the sigmoid, for runtimes that compute it and the product
            in integers. `None` leaves the activation in one piece.
        **kwargs: those of `BaseQuantizeWrapper`.

    Raises:
        ValueError: `gate_scheme` for another activation than SiLU.
    """

    def __init__(self, layer, *, gate_scheme: QuantizationScheme | dict | None = None, **kwargs):
        super().__init__(layer, **kwargs)
        if gate_scheme is not None and getattr(layer, "activation", None) is not keras.activations.silu:
            raise ValueError(f"Only a SiLU activation has a gate to quantize; {layer.name!r} is another.")
        self.gate_scheme = QuantizationScheme.from_config(gate_scheme) if gate_scheme else None
        self.gate_quantizer: ActivationQuantizer | None = None

    def build(self, input_shape=None):
        super().build(input_shape)
        if self.gate_scheme is not None:
            self.gate_quantizer = self._activation_quantizer(self.gate_scheme, "gate_quantizer")

    def _inner_quantizers(self):
        return [self.gate_quantizer] if self.gate_quantizer is not None else []

    def _call_layer(self, inputs, training, **kwargs):
        if self.gate_quantizer is None:
            return super()._call_layer(inputs, training, **kwargs)
        return inputs * self.gate_quantizer(keras.ops.sigmoid(inputs), training=training)

    def get_config(self):
        config = super().get_config()
        config["gate_scheme"] = self.gate_scheme.get_config() if self.gate_scheme else None
        return config
