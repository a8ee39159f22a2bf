"""Fake quantization with its gradient, in each training step."""

from __future__ import annotations

import contextlib

import keras
from keras import ops

from tensorflow_quantization.quantizers import numerics
from tensorflow_quantization.quantizers.scheme import QuantizationScheme


def fake_quantize(x, scale, zero_point, scheme: QuantizationScheme, rectify: bool = False):
    """Returns `dequantize(quantize(x))`, with the straight-through gradient.

    The gradient with respect to `x` is 1 where `x` is in the range and 0 where `x` is clipped (arXiv:1308.3432; clipped
    as in arXiv:1806.08342). `scale` and `zero_point` get no gradient.

    Args:
        x: float32 tensor of any shape.
        scale, zero_point: float32, broadcastable to `x`; or numbers.
        scheme: its `qmin` and `qmax` clip.
        rectify: `x` is what a ReLU reads, and the result is `fake_quantize(relu(x))`, with the gradient of both, for
            schemes of integers. A ReLU alone keeps its output for the gradient. Default `False`.

    Returns:
        A float32 tensor in the shape of `x`.
    """
    return _fake_quantize(x, scale, zero_point, scheme, None, rectify)


def fake_quantize_learned(
    x, scale, zero_point, scheme: QuantizationScheme, gradient_scale, offset=None, rectify: bool = False
):
    """Returns what `fake_quantize` returns; `scale` gets the LSQ gradient (arXiv:1902.08153, equation 3).

    Args:
        x: float32 tensor of any shape.
        scale, zero_point: float32, broadcastable to `x`; the zero point may be a number.
        scheme: its `qmin` and `qmax` clip.
        gradient_scale: float, or a tensor broadcastable to `scale`: multiplies the gradients with respect to `scale`
            and `offset`; 1 / sqrt(elements * qmax) in LSQ, section 2.2.
        offset: float32 in the shape of `scale`, what the trained zero point has shifted the range by, in the unit of
            `x`. It gets the gradient of LSQ+ (arXiv:2004.09576, equation 6): 1 where `x` is clipped. Default `None`:
            the zero point is not trained.
        rectify: as for `fake_quantize`; not with an `offset`.

    Returns:
        A float32 tensor in the shape of `x`.
    """
    if offset is None:
        return _fake_quantize(x, scale, zero_point, scheme, gradient_scale, rectify)
    return _fake_quantize_with_offset(x, scale, offset, zero_point, scheme, gradient_scale)


def _fake_quantize(x, scale, zero_point, scheme, gradient_scale, rectify=False):
    """Returns the rounded `x`; without a `gradient_scale`, `scale` has no gradient."""
    # Shifting the limits saves two passes over `x`: adding the zero point and subtracting it again.
    lowest, highest = _limits(zero_point, scheme)
    if rectify:
        lowest = 0.0
    kernel = _kernel_of_backend(scheme)
    if kernel is not None:
        return kernel(x, scale, lowest, highest, gradient_scale, rectify)
    scale = float32(scale)  # a number has no gradient

    # With clip and stop_gradient instead, the gradient is a select, which takes twice as long as this product.
    @ops.custom_gradient
    def straight_through(x, scale):
        if scheme.floating:
            y = numerics.quantize(x, scale, zero_point, scheme) * scale
        else:
            y = ops.clip(ops.round(x / scale), lowest, highest) * scale

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            inside = ops.logical_and(x > 0.0 if rectify else x >= lowest * scale, x <= highest * scale)
            to_x = _masked(inside, upstream)
            if gradient_scale is None:
                return to_x, ops.zeros_like(scale)
            # Equation 3 times the scale: what rounding adds where `x` is in the range, and the limit elsewhere.
            error = y - x * ops.cast(inside, x.dtype)
            return to_x, _sum_to(upstream * error, scale) / scale * gradient_scale

        return y, gradient

    return straight_through(x, scale)


def _fake_quantize_with_offset(x, scale, offset, zero_point, scheme, gradient_scale):
    lowest, highest = _limits(zero_point, scheme)

    @ops.custom_gradient
    def straight_through(x, scale, offset):
        y = ops.clip(ops.round(x / scale), lowest, highest) * scale

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            inside = ops.logical_and(x >= lowest * scale, x <= highest * scale)
            to_x = _masked(inside, upstream)
            # Where `x` is clipped, y is a multiple of the scale plus the offset.
            to_scale = _sum_to(upstream * (y - ops.where(inside, x, offset)), scale) / scale
            to_offset = _sum_to(upstream - to_x, offset)
            return to_x, to_scale * gradient_scale, to_offset * gradient_scale

        return y, gradient

    return straight_through(x, scale, offset)


def _limits(zero_point, scheme):
    """Returns the least and the greatest integer, less the zero point: numbers where that is known without a tensor."""
    if scheme.zero_point is not None:
        zero_point = scheme.zero_point
    elif ops.is_tensor(zero_point):
        zero_point = ops.stop_gradient(zero_point)
    return scheme.qmin - zero_point, scheme.qmax - zero_point


def _kernel_of_backend(scheme):
    """Returns a kernel that replaces compiled code, or `None`."""
    if keras.backend.backend() != "torch" or scheme.floating:
        return None
    import torch

    from tensorflow_quantization.quantizers.torch_kernel import FakeQuantize

    return None if torch.compiler.is_compiling() else FakeQuantize.apply


def _masked(inside, upstream):
    """Returns the upstream gradient where `x` is in the range, and 0 elsewhere."""
    # A graph of TensorFlow computes as early as it can. Without the dependency, each mask would lie in memory as
    # floats, not as booleans, from the forward pass on.
    with _after(upstream):
        mask = ops.cast(inside, upstream.dtype)
    return upstream * mask  # a select takes twice as long


def _after(tensor):
    """Returns a context: TensorFlow computes what is in it once `tensor` is computed."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([tensor])


def _sum_to(x, like):
    """Returns the sum of `x` over the axes along which `like` was broadcast."""
    shape = (1,) * (len(x.shape) - len(like.shape)) + tuple(like.shape)
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return ops.reshape(ops.sum(x, axis=axes), like.shape) if axes else x


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
