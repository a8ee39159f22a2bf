"""Products that Keras computes with operators around them, as the one operator that LiteRT has for each.

The converter leaves such operators where they are, between the product and its bias, where nothing has integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

#: Gets a layer, its variables by path, and the input.
Product = Callable[..., Any]


def product_of(layer: keras.layers.Layer) -> Product | None:
    """What computes `layer` in the place of its own `call`; `None` where that is as good."""
    if type(layer) is keras.layers.Dense and not getattr(layer, "lora_enabled", False):
        return _dense
    if getattr(layer, "data_format", None) != "channels_last" or max(np.ravel(getattr(layer, "dilation_rate", 1))) == 1:
        return None
    if type(layer) is keras.layers.Conv2D and layer.groups == 1:
        return _dilated
    return _dilated_depthwise if type(layer) is keras.layers.DepthwiseConv2D else None


def _dense(layer: Any, values: dict[str, np.ndarray], x: Any, **kwargs: Any) -> Any:
    import tensorflow as tf

    return _finish(layer, values, tf.matmul(x, values[layer.kernel.path]))


def _dilated(layer: Any, values: dict[str, np.ndarray], x: Any, **kwargs: Any) -> Any:
    import tensorflow as tf

    kernel = values[layer.kernel.path]
    y = tf.nn.conv2d(x, kernel, layer.strides, layer.padding.upper(), dilations=layer.dilation_rate)
    return _finish(layer, values, y)


def _dilated_depthwise(layer: Any, values: dict[str, np.ndarray], x: Any, **kwargs: Any) -> Any:
    import tensorflow as tf

    # Not tf.nn.depthwise_conv2d, which rearranges the image instead.
    y = tf.raw_ops.DepthwiseConv2dNative(
        input=x,
        filter=values[layer.kernel.path],
        strides=[1, *layer.strides, 1],
        padding=layer.padding.upper(),
        dilations=[1, *layer.dilation_rate, 1],
    )
    return _finish(layer, values, y)


def _finish(layer: Any, values: dict[str, np.ndarray], y: Any) -> Any:
    """Bias and activation."""
    if layer.use_bias:
        y = y + values[layer.bias.path]
    return y if layer.activation is None else layer.activation(y)
