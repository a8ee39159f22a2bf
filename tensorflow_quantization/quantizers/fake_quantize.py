"""Fake quantization with its gradient. A faster kernel of a backend would replace these functions, and no others."""

from __future__ import annotations

from keras import ops

from tensorflow_quantization.quantizers import numerics
from tensorflow_quantization.quantizers.scheme import QuantizationScheme


def fake_quantize(x, scale, zero_point, scheme: QuantizationScheme):
    """Returns `dequantize(quantize(x))`, with the straight-through gradient.

    The gradient with respect to `x` is 1 where `x` is in the range and 0 where `x` is clipped (arXiv:1308.3432; clipped
    as in arXiv:1806.08342). `scale` and `zero_point` get no gradient.

    Args:
        x: float32 tensor of any shape.
        scale, zero_point: float32, broadcastable to `x`.
        scheme: its `qmin` and `qmax` clip.

    Returns:
        A float32 tensor in the shape of `x`.
    """
    scale, zero_point = ops.stop_gradient(scale), ops.stop_gradient(zero_point)
    # Shifting the limits saves two passes over `x`: adding the zero point and subtracting it again.
    lowest, highest = scheme.qmin - zero_point, scheme.qmax - zero_point

    # With clip and stop_gradient instead, the gradient is a select, which takes twice as long as this product.
    @ops.custom_gradient
    def straight_through(x):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            inside = ops.logical_and(x >= lowest * scale, x <= highest * scale)
            return upstream * ops.cast(inside, upstream.dtype)

        if scheme.floating:
            return numerics.quantize(x, scale, zero_point, scheme) * scale, gradient
        return ops.clip(ops.round(x / scale), lowest, highest) * scale, gradient

    return straight_through(x)


def fake_quantize_learned(x, scale, zero_point, scheme: QuantizationScheme, gradient_scale):
    """Returns what `fake_quantize` returns; `scale` gets the LSQ gradient (arXiv:1902.08153, equation 3).

    Args:
        x: float32 tensor of any shape.
        scale, zero_point: float32, broadcastable to `x`.
        scheme: its `qmin` and `qmax` clip.
        gradient_scale: float, or a tensor broadcastable to `scale`: multiplies the gradient with respect to `scale`;
            1 / sqrt(elements * qmax) in LSQ, section 2.2.

    Returns:
        A float32 tensor in the shape of `x`.
    """
    # The first lines multiply the gradient of `scale` by `gradient_scale`. The value is exactly that of `scale`, since
    # the difference is zero: integers in training are the integers of the file.
    value = ops.stop_gradient(scale)
    scale = value + gradient_scale * (scale - value)
    ratio = ops.clip(x / scale, scheme.qmin - zero_point, scheme.qmax - zero_point)
    rounded = ratio + ops.stop_gradient(numerics.nearest(ratio, scheme) - ratio)
    return rounded * scale


def rounded(x, scale, zero_point, scheme: QuantizationScheme):
    """Returns `dequantize(quantize(x))` without a gradient, in the dtype of `x`.

    Args:
        x: float tensor of any shape.
        scale, zero_point: broadcastable to `x`.
        scheme: its `qmin` and `qmax` clip.
    """
    x32, scale, zero_point = (ops.cast(v, "float32") for v in (x, scale, zero_point))
    return ops.cast(numerics.dequantize(numerics.quantize(x32, scale, zero_point, scheme), scale, zero_point), x.dtype)


def float32(x):
    """Returns `x` as a float32 tensor.

    Mixed-precision policies compute in bfloat16, whose 8 significant bits are too few to round to 8-bit integers. The
    result is a tensor even if `x` is a variable: a custom gradient of TensorFlow may not read a variable.
    """
    return ops.cast(x, "float32")
