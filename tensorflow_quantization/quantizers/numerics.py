"""Uniform quantization as pure functions: numbers in, numbers out.

Each takes `xp`, the array namespace to compute with: `keras.ops` in a training step, `numpy` when a file is written.
Both round half to even and divide in float32, so that training and file agree to the integer.
"""

from __future__ import annotations

from typing import Any

import keras

from tensorflow_quantization.quantizers.scheme import QuantizationScheme

Array = Any
#: A scale below this is that of a tensor or channel that is all zeros.
SMALLEST_SCALE = 1e-12
#: It becomes this: its integers are zeros too, float16 holds it, and a range of uint8 lies within that of a ReLU6.
SCALE_OF_ZEROS = 2.0**-7


def scale_from_range(low: Array, high: Array, scheme: QuantizationScheme, xp=keras.ops) -> tuple[Array, Array]:
    """Scale and zero point (both float, broadcast like `low`) that cover [low, high] and zero.

    Symmetric signed: scale = max(|low|, |high|) / qmax, zero point 0. Symmetric unsigned: scale = high / (qmax -
    qmin), zero point qmin. Affine: scale = (high - low) / (qmax - qmin) of the range widened to hold zero, zero point
    = round(qmin - low / scale): ONNX' DynamicQuantizeLinear, and section 2.1 of arXiv:1712.05877. Fixed: what the
    scheme says.
    """
    if scheme.fixed is not None:
        scale, zero_point = scheme.fixed
        return xp.zeros_like(low) + scale, xp.zeros_like(low) + zero_point
    if scheme.symmetric and scheme.signed:
        scale = _positive(xp.maximum(xp.abs(low), xp.abs(high)) / scheme.qmax, xp)
        return scale, xp.zeros_like(scale)
    levels = scheme.qmax - scheme.qmin
    if scheme.symmetric:
        scale = _positive(xp.maximum(high, xp.zeros_like(high)) / levels, xp)
        return scale, xp.zeros_like(scale) + scheme.qmin
    low = xp.minimum(low, xp.zeros_like(low))
    high = xp.maximum(high, xp.zeros_like(high))
    scale = _positive((high - low) / levels, xp)
    return scale, xp.clip(xp.round(scheme.qmin - low / scale), scheme.qmin, scheme.qmax)


def weight_range(weight: Array, scheme: QuantizationScheme, xp=keras.ops) -> tuple[Array, Array]:
    """Least and greatest weight, per channel where the scheme has an axis (kept as axes of size 1)."""
    axes = reduced_axes(len(weight.shape), scheme)
    return xp.min(weight, axis=axes, keepdims=True), xp.max(weight, axis=axes, keepdims=True)


def reduced_axes(rank: int, scheme: QuantizationScheme) -> tuple[int, ...]:
    """The axes that share one scale."""
    kept = {a % rank for a in scheme.axis or ()}
    return tuple(a for a in range(rank) if a not in kept)


def quantize(x: Array, scale: Array, zero_point: Array, scheme: QuantizationScheme, xp=keras.ops) -> Array:
    """Integers as floats: clip(round(x / scale) + zero_point, qmin, qmax), the formula of ONNX' QuantizeLinear."""
    return xp.clip(xp.round(x / scale) + zero_point, scheme.qmin, scheme.qmax)


def dequantize(q: Array, scale: Array, zero_point: Array) -> Array:
    """(q - zero_point) * scale, the formula of ONNX' DequantizeLinear."""
    return (q - zero_point) * scale


def _positive(scale: Array, xp) -> Array:
    return xp.where(scale > SMALLEST_SCALE, scale, SCALE_OF_ZEROS * xp.ones_like(scale))
