"""Fake quantization on PyTorch without a compiler: few passes over the tensor, in place.

Imported with this backend only. Of `keras.ops`, each of ten operations would make a new tensor.
"""

from __future__ import annotations

import numpy as np
import torch

#: The least number above 0 that is not denormal.
SMALLEST = float(np.finfo(np.float32).tiny)


class FakeQuantize(torch.autograd.Function):
    """clip(round(x / scale), lowest, highest) * scale, with the gradients of `fake_quantize`.

    `x` is a float32 tensor, `scale`, `lowest` and `highest` are such tensors or numbers, and `gradient_scale` is `None`
    where `scale` has no gradient. With `rectify`, `lowest` is 0, and zeros have no gradient either, as in a ReLU.
    """

    @staticmethod
    def forward(ctx, x, scale, lowest, highest, gradient_scale, rectify=False):
        lowest, highest = _number(lowest), _number(highest)
        y = (x / scale).round_().clamp_(lowest, highest).mul_(scale)
        low = SMALLEST if rectify else lowest * scale
        ctx.limits = _number(low), _number(highest * scale)
        ctx.gradient_scale = gradient_scale
        ctx.save_for_backward(*([x] if gradient_scale is None else [x, y, scale]))
        return y

    @staticmethod
    def backward(ctx, upstream):
        x, *others = ctx.saved_tensors
        to_scale = None
        if ctx.gradient_scale is not None:
            y, scale = others
            error = (y - _inside(x, x, *ctx.limits)).mul_(upstream)
            to_scale = error.sum_to_size(scale.shape) / scale * ctx.gradient_scale
        return _inside(upstream, x, *ctx.limits), to_scale, None, None, None, None


def _number(limit):
    """Returns a limit that all elements share as a number: with a tensor, these operators take up to ten times as long.

    Not on a GPU, which the next operators would then wait for.
    """
    if isinstance(limit, torch.Tensor) and limit.numel() == 1 and limit.is_cpu:
        return limit.item()
    return limit


def _inside(values, x, low, high):
    """Returns the values where low <= x <= high, and 0 elsewhere."""
    if isinstance(low, torch.Tensor):
        return values * torch.logical_and(x >= low, x <= high)
    # One pass instead of four. Its limits are excluded, so it gets the next numbers beyond ours.
    below = np.nextafter(np.float32(low), np.float32(-np.inf))
    above = np.nextafter(np.float32(high), np.float32(np.inf))
    return torch.ops.aten.hardtanh_backward(values, x, float(below), float(above))
