"""The wrappers of this package, one class for each layer class.

The target (`targets/`) decides which layers `quantize_model` wraps by default.
"""

from __future__ import annotations

import keras
from keras import ops

from tensorflow_quantization.model.keras_internals import without_autocast
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme
from tensorflow_quantization.wrappers.bias import add_to_channels, integer_bias
from tensorflow_quantization.wrappers.non_weighted import NonWeightedBaseQuantizeWrapper
from tensorflow_quantization.wrappers.weighted import WeightedBaseQuantizeWrapper

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


class SeparableBaseQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """Base class for separable convolutions: a depthwise and a pointwise convolution in one layer.

    Args:
        layer: the layer to wrap.
        kernel_type: the attributes of the layer that hold its two kernels.
        inner_scheme: `QuantizationScheme` of the tensor between the two convolutions, or its config. `None` (default):
            this tensor stays float.
        **kwargs: arguments of `BaseQuantizeWrapper`.

    Raises:
        ValueError: `inner_scheme` for a subclass that overrides `call`.
    """

    def __init__(
        self, layer, kernel_type=_SEPARABLE, *, inner_scheme: QuantizationScheme | dict | None = None, **kwargs
    ):
        super().__init__(layer, kernel_type=tuple(kernel_type), **kwargs)
        if inner_scheme is not None and not self.divides(layer):
            raise ValueError(
                f"{type(layer).__name__} {layer.name!r} overrides `call`, so inner_scheme cannot apply. Leave it out."
            )
        self.inner_scheme = QuantizationScheme.from_config(inner_scheme) if inner_scheme else None
        self.inner_quantizer: ActivationQuantizer | None = None

    @staticmethod
    def divides(layer: keras.layers.Layer) -> bool:
        """Returns whether a layer computes as Keras' layer does, so that its two convolutions can run separately."""
        return type(layer).call is keras.layers.SeparableConv2D.call

    def build(self, input_shape=None):
        super().build(input_shape)
        if self.inner_scheme is not None:
            self.inner_quantizer = self._activation_quantizer(self.inner_scheme, "inner_quantizer")

    def _inner_quantizers(self):
        return [self.inner_quantizer] if self.inner_quantizer is not None else []

    def _call_layer(self, inputs, training, **kwargs):
        if self.inner_quantizer is None and (self.product_observer is None or not self.divides(self.layer)):
            return super()._call_layer(inputs, training, **kwargs)
        layer = self.layer
        depthwise, pointwise = (ops.cast(self._kernel(name), inputs.dtype) for name in self.kernels)
        form = {"data_format": layer.data_format, "dilation_rate": layer.dilation_rate}
        self._show_product(self.kernels[0], inputs)
        x = ops.depthwise_conv(inputs, depthwise, layer.strides, layer.padding, **form)
        if self.inner_quantizer is not None:
            x = self.inner_quantizer(x, training=training)
        self._show_product(self.kernels[1], x)
        x = ops.conv(x, pointwise, data_format=layer.data_format)
        bias = None if training or self.is_quantized else integer_bias(self)
        if layer.use_bias:
            bias = ops.cast(layer.bias if bias is None else bias, x.dtype)
            x = x + (bias if layer.data_format == "channels_last" else ops.reshape(bias, (-1, *[1] * layer.rank)))
        elif bias is not None:
            x = add_to_channels(self, x, bias)
        if layer.activation is not None:
            x = layer.activation(x)
        if layer.activity_regularizer is not None:
            self.add_loss(layer.activity_regularizer(x))
        return x

    def _kernel(self, name: str):
        """Returns a kernel of the layer, quantized if it has a quantizer."""
        with without_autocast():  # weights are rounded in their stored dtype, as the export rounds them
            kernel = ops.convert_to_tensor(getattr(self.layer, name))
        quantizer = self.weight_quantizers.get(name)
        return kernel if quantizer is None or self.is_quantized else quantizer(kernel)

    def get_config(self):
        config = super().get_config()
        config["inner_scheme"] = self.inner_scheme.get_config() if self.inner_scheme else None
        return config


class SeparableConv1DQuantizeWrapper(SeparableBaseQuantizeWrapper):
    """`keras.layers.SeparableConv1D`."""


class SeparableConv2DQuantizeWrapper(SeparableBaseQuantizeWrapper):
    """`keras.layers.SeparableConv2D`."""


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
        gate_scheme: for SiLU, x * sigmoid(x): `QuantizationScheme` of the sigmoid, or its config, for runtimes that
            compute the sigmoid and the product in integers. `None` (default): the sigmoid is not quantized.
        **kwargs: arguments of `BaseQuantizeWrapper`.

    Raises:
        ValueError: `gate_scheme` for an activation other than SiLU.
    """

    def __init__(self, layer, *, gate_scheme: QuantizationScheme | dict | None = None, **kwargs):
        super().__init__(layer, **kwargs)
        if gate_scheme is not None and getattr(layer, "activation", None) is not keras.activations.silu:
            raise ValueError(f"gate_scheme is for a SiLU activation only; {layer.name!r} is another activation.")
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
