"""`WeightedBaseQuantizeWrapper`: the base class of wrappers for layers with a kernel."""

from __future__ import annotations

import inspect

import keras

from tensorflow_quantization.wrappers.base import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.channels import output_channel_axis


class WeightedBaseQuantizeWrapper(BaseQuantizeWrapper):
    """Base class of wrappers for layers with a kernel: fake-quantizes the inputs, and the kernel per-channel.

    Examples:
        >>> class ChannelGain(keras.layers.Layer):
        ...     def build(self, input_shape):
        ...         self.gain = self.add_weight(shape=(input_shape[-1],), initializer="ones")
        ...     def call(self, inputs):
        ...         return inputs * self.gain
        >>> class ChannelGainQuantizeWrapper(WeightedBaseQuantizeWrapper):
        ...     def __init__(self, layer, **kwargs):
        ...         super().__init__(layer, kernel_type="gain", **kwargs)
        >>> wrapper = ChannelGainQuantizeWrapper(ChannelGain())
        >>> wrapper(np.ones((1, 3), "float32")).shape == (1, 3)
        True
        >>> wrapper.kernels, wrapper.channel_axis
        (('gain',), -1)

    Args:
        layer: the `keras.layers.Layer` to wrap, built or not.
        kernel_type: str, the attribute of the layer that holds the kernel; a tuple of str for several kernels. Default
            "kernel".
        **kwargs: arguments of `BaseQuantizeWrapper`.

    Attributes:
        channel_axis: int, or tuple of ints: the kernel's axis, or axes, of the output channels. The kernel has one
            scale for each index of them. The default is right for every Keras layer and is -1 for custom layers; a
            subclass can set another axis before or after `super().__init__`.
    """

    def __init__(self, layer: keras.layers.Layer, kernel_type: str | tuple[str, ...] = "kernel", **kwargs):
        super().__init__(layer, **kwargs)
        self.kernel_type = kernel_type
        if self.channel_axis is None:
            axis = output_channel_axis(layer, self.kernels[0])
            self.channel_axis = axis[0] if len(axis) == 1 else axis

    def get_config(self):
        config = super().get_config()
        # `from_config` passes it to `__init__`, and a subclass may fix the kernel instead of taking it.
        if "kernel_type" in inspect.signature(type(self).__init__).parameters:
            config["kernel_type"] = self.kernel_type
        return config
