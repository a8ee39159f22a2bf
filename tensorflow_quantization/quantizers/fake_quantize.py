"""Fake-quantization with its gradient: the one function where a backend's fast kernel may stand in."""

from __future__ import annotations

from keras import ops

from tensorflow_quantization.quantizers.scheme import QuantizationScheme


def fake_quantize(x, scale, zero_point, scheme: QuantizationScheme):
    """`dequantize(quantize(x))` with the straight-through gradient.

    The gradient to `x` is 1 inside the range and 0 where `x` is clipped (arXiv:1308.3432, clipped as in
    arXiv:1806.08342); none goes to `scale` or `zero_point`.

    Args:
        x: float32 tensor of any shape.
        scale, zero_point: float32, broadcastable to `x`.
        scheme: the integers.
    """
    scale, zero_point = ops.stop_gradient(scale), ops.stop_gradient(zero_point)
    # The zero point goes into the limits: adding it to the integers and taking it off again would cost two passes.
    lowest, highest = scheme.qmin - zero_point, scheme.qmax - zero_point

    # Written as clip and stop_gradient, the gradient would be a select, which costs twice as much as this product.
    @ops.custom_gradient
    def straight_through(x):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            inside = ops.logical_and(x >= lowest * scale, x <= highest * scale)
            return upstream * ops.cast(inside, upstream.dtype)

        return ops.clip(ops.round(x / scale), lowest, highest) * scale, gradient

    return straight_through(x)


def fake_quantize_learned(x, scale, zero_point, scheme: QuantizationScheme, gradient_scale: float):
    """`fake_quantize` that also gives `scale` its gradient, that of LSQ (arXiv:1902.08153, equation 3).

    Args:
        gradient_scale: multiplies the gradient to `scale`; LSQ takes 1 / sqrt(elements * qmax).
    """
    scale = scale * gradient_scale + ops.stop_gradient(scale - scale * gradient_scale)
    ratio = ops.clip(x / scale, scheme.qmin - zero_point, scheme.qmax - zero_point)
    rounded = ratio + ops.stop_gradient(ops.round(ratio) - ratio)
    return rounded * scale


def float32(x):
    """`x` in float32, whatever the mixed-precision policy computes in: eight bits of a bfloat16 are too few.

    Always a tensor: a custom gradient of TensorFlow may not read a variable.
    """
    return ops.cast(x, "float32")
