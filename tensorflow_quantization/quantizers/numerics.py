"""Quantization as pure functions.

`xp` is the array namespace that computes: `keras.ops` in training, `numpy` in the export. Both round half to even and
divide in float32, so the model and the file agree on every integer, and on every number of FP8.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.quantizers.scale_groups import grouped
from tensorflow_quantization.quantizers.scheme import QuantizationScheme

Array = Any
#: A scale up to this belongs to a tensor or channel of zeros only.
SMALLEST_SCALE = 1e-12
#: Replaces such a scale. Zeros stay zeros, float16 can represent the scale, and 255 steps of it stay below ReLU6's 6.
SCALE_OF_ZEROS = 2.0**-7
#: Candidate ranges of a weight, as fractions of its greatest magnitude.
_FRACTIONS = np.linspace(0.2, 1.0, 81)
#: The bits of the exponent of a float32.
_EXPONENT = 0x7F800000
#: The least FP8 number with 4 significant bits, and the distance of FP8 numbers in parts of their power of two.
_SMALLEST_NORMAL, _SPACING = 2.0**-6, 2.0**-3


def scale_from_range(low: Array, high: Array, scheme: QuantizationScheme, xp=keras.ops) -> tuple[Array, Array]:
    """Returns the scale and the zero point whose integers cover [low, high] and zero.

    | scheme | scale | zero point |
    |---|---|---|
    | symmetric, signed | max(abs(low), abs(high)) / qmax | 0 |
    | symmetric, unsigned | high / (qmax - qmin) | qmin |
    | asymmetric | (high - low) / (qmax - qmin) | round(qmin - low / scale) |
    | fixed | `scheme.fixed[0]` | `scheme.fixed[1]` |

    Asymmetric schemes first widen the range to contain zero (arXiv:1712.05877, section 2.1; ONNX'
    DynamicQuantizeLinear). The scale of a range of zeros is 2**-7.

    Examples:
        >>> import numpy as np
        >>> scheme = QuantizationScheme(signed=False, symmetric=False, narrow_range=False)
        >>> scale, zero_point = scale_from_range(np.float32(-1.0), np.float32(1.55), scheme, np)
        >>> f"{scale:.2f}, {zero_point:.0f}"
        '0.01, 100'

    Args:
        low: float32, any shape; the least value, one number for each scale.
        high: float32, the shape of `low`; the greatest value.
        scheme: the integers.
        xp: the array namespace; default `keras.ops`.

    Returns:
        (scale, zero point), both float and in the shape of `low`. The scale is positive, in the unit of `low`; the zero
        point is a whole number.
    """
    levels = scheme.qmax - scheme.qmin
    if scheme.zero_point is not None:
        if scheme.fixed is not None:
            scale = xp.zeros_like(low) + scheme.fixed[0]
        elif scheme.signed:
            scale = _scale_of_magnitude(xp.maximum(xp.abs(low), xp.abs(high)), scheme, xp)
        else:
            scale = _positive(xp.maximum(high, xp.zeros_like(high)) / levels, xp)
        return _with_zero_point(scale, scheme)
    low = xp.minimum(low, xp.zeros_like(low))
    high = xp.maximum(high, xp.zeros_like(high))
    scale = _positive((high - low) / levels, xp)
    return scale, xp.clip(xp.round(scheme.qmin - low / scale), scheme.qmin, scheme.qmax)


def learned_scale(start: Array, change: Array, xp=keras.ops) -> Array:
    """Returns the scale of a learned step: its start, plus the trained change as a fraction of the start.

    A fraction, because Adam changes all weights by the same amount in a step, and steps differ by orders of magnitude.
    """
    return start * xp.maximum(1.0 + change, 1e-3)  # a step must stay positive


def lsq_gradient_scale(elements: float, start: Array, scheme: QuantizationScheme) -> Array:
    """Returns what multiplies the gradient of a learned step, for the elements that share it (LSQ, section 2.2).

    It is divided by the start twice: once for the derivative of `learned_scale`, and once so that gradient descent on
    the change moves the step as in LSQ.
    """
    return 1.0 / (math.sqrt(max(elements, 1) * scheme.qmax) * start**2)


def least_squares_limit(weight: Array, scheme: QuantizationScheme) -> Array:
    """Returns the limit, [-limit, limit], with the least sum of (quantized - weight)**2 for each scale of a weight.

    A limit below the greatest magnitude clips some weights and has finer steps for all others (arXiv:2004.09602,
    section 4.1). 81 limits from a fifth of the greatest magnitude to all of it are compared.

    Examples:
        >>> import numpy as np
        >>> kernel = np.float32([[1.0], [0.42], [-0.44], [0.43], [0.41]])
        >>> f"{least_squares_limit(kernel, QuantizationScheme(bits=2, axis=-1))[0, 0]:.2f}"
        '0.54'

    Args:
        weight: float32 NumPy array of any shape.
        scheme: the integers; symmetric and signed.

    Returns:
        A float32 NumPy array with one number per scale: in the shape of the groups that `grouped` returns, but 1 along
        the axes that share a scale.
    """
    weight, axes = grouped(weight, scheme, np)
    greatest = np.abs(weight).max(axis=axes, keepdims=True)
    best, least = greatest, np.full_like(greatest, np.inf)
    for fraction in _FRACTIONS[::-1]:  # of equal errors, the widest range
        limit = np.float32(fraction) * greatest
        scale, zero_point = scale_from_range(-limit, limit, scheme, np)
        rounded = dequantize(quantize(weight, scale, zero_point, scheme, np), scale, zero_point)
        error = ((rounded - weight) ** 2).sum(axis=axes, keepdims=True)
        best, least = np.where(error < least, limit, best), np.minimum(error, least)
    return best


def weight_range(weight: Array, scheme: QuantizationScheme, xp=keras.ops) -> tuple[Array, Array]:
    """Returns the least and the greatest value of a weight for each of its scales.

    Examples:
        >>> import numpy as np
        >>> kernel = np.array([[1.0, 0.1], [-0.5, 0.02]], "float32")
        >>> low, high = weight_range(kernel, QuantizationScheme(axis=-1), np)
        >>> high.shape, float(high[0, 0])
        ((1, 2), 1.0)

    Args:
        weight: float array of any shape.
        scheme: `scheme.axis` names the channel axes, and `scheme.block_size` the inputs that share a scale.
        xp: the array namespace; default `keras.ops`.

    Returns:
        (least, greatest), in the dtype of `weight` and the shape of its groups (`scale_groups.grouped`), but 1 along
        the axes that share a scale. The range of a last block that is shorter contains zero.
    """
    weight, axes = grouped(weight, scheme, xp)
    return xp.min(weight, axis=axes, keepdims=True), xp.max(weight, axis=axes, keepdims=True)


def scale_of_weight(weight: Array, scheme: QuantizationScheme, xp=keras.ops) -> tuple[Array, Array]:
    """Returns the scale and the zero point whose integers cover a weight: `scale_from_range` of its `weight_range`.

    Examples:
        >>> import numpy as np
        >>> kernel = np.array([[1.0, 0.1], [-0.5, 0.02]], "float32")
        >>> scale, zero_point = scale_of_weight(kernel, QuantizationScheme(axis=-1), np)
        >>> scale * 127, zero_point
        (array([[1. , 0.1]], dtype=float32), array([[0., 0.]], dtype=float32))

    Args:
        weight: float array of any shape.
        scheme: the integers; `axis` and `block_size` say which elements share a scale.
        xp: the array namespace; default `keras.ops`.

    Returns:
        (scale, zero point), both float and in the shape that `weight_range` returns.
    """
    if scheme.signed and scheme.symmetric and scheme.fixed is None:  # the greatest magnitude says it in fewer passes
        groups, axes = grouped(weight, scheme, xp)
        scale = _scale_of_magnitude(xp.max(xp.abs(groups), axis=axes, keepdims=True), scheme, xp)
        return _with_zero_point(scale, scheme)
    return scale_from_range(*weight_range(weight, scheme, xp), scheme, xp)


def spacing(number: Array, scheme: QuantizationScheme, xp=keras.ops) -> Array:
    """Returns the distance of neighbouring integers or FP8 numbers at each number: 1 for integers.

    The numbers of FP8 from 2**e to 2**(e + 1) lie 2**(e - 3) apart, below 2**-6 as they do above it (arXiv:2209.05433,
    table 1).

    Examples:
        >>> import numpy as np
        >>> spacing(np.float32([0.3, 9.4, 100.0, 0.0]), QuantizationScheme(floating=True), np).tolist()
        [0.03125, 1.0, 8.0, 0.001953125]

    Args:
        number: float32 array of any shape.
        scheme: the integers.
        xp: the array namespace; default `keras.ops`.

    Returns:
        float32, in the shape of `number`.
    """
    if not scheme.floating:
        return xp.ones_like(number)
    if xp is np:
        power = np.ldexp(np.sign(np.abs(number)), np.frexp(number)[1] - 1)
    else:  # the bits of the exponent alone are a power of two
        power = xp.view(xp.bitwise_and(xp.view(number, "int32"), _EXPONENT), "float32")
    return xp.maximum(power, _SMALLEST_NORMAL) * _SPACING


def nearest(ratio: Array, scheme: QuantizationScheme, xp=keras.ops) -> Array:
    """Returns the nearest integer or FP8 number of each value, half to even, also beyond `qmin` and `qmax`.

    Examples:
        >>> import numpy as np
        >>> nearest(np.float32([0.3, 9.4, 100.0]), QuantizationScheme(floating=True), np)
        array([ 0.3125,  9.    , 96.    ], dtype=float32)

    Args:
        ratio: float32 array of any shape: x / scale.
        scheme: the integers.
        xp: the array namespace; default `keras.ops`.

    Returns:
        float32, in the shape of `ratio`.
    """
    if not scheme.floating:
        return xp.round(ratio)
    # Not a cast to FP8 and back: compilers may drop such a pair. Dividing by a power of two is exact.
    unit = spacing(ratio, scheme, xp)
    return xp.round(ratio / unit) * unit


def quantize(x: Array, scale: Array, zero_point: Array, scheme: QuantizationScheme, xp=keras.ops) -> Array:
    """Returns clip(round(x / scale) + zero_point, qmin, qmax), as ONNX' QuantizeLinear does.

    Examples:
        >>> import numpy as np
        >>> quantize(np.array([-1.0, 0.26, 99.0]), 0.5, 0.0, QuantizationScheme(bits=4), np)
        array([-2.,  1.,  7.])

    Args:
        x: float array of any shape.
        scale: float, broadcastable to `x`; positive.
        zero_point: float that holds a whole number, broadcastable to `x`.
        scheme: its `qmin` and `qmax` clip.
        xp: the array namespace; default `keras.ops`.

    Returns:
        Whole numbers, or FP8 numbers, in the shape and float dtype of `x`.
    """
    if scheme.floating:  # its zero point is 0
        return nearest(xp.clip(x / scale, scheme.qmin, scheme.qmax), scheme, xp)
    return xp.clip(xp.round(x / scale) + zero_point, scheme.qmin, scheme.qmax)


def dequantize(q: Array, scale: Array, zero_point: Array) -> Array:
    """Returns (q - zero_point) * scale, as ONNX' DequantizeLinear does.

    Examples:
        >>> import numpy as np
        >>> dequantize(np.array([-2.0, 1.0, 7.0]), 0.5, 0.0)
        array([-1. ,  0.5,  3.5])

    Args:
        q: float array of whole numbers, any shape.
        scale: float, broadcastable to `q`.
        zero_point: float that holds a whole number, broadcastable to `q`.

    Returns:
        Real values in the shape of `q`.
    """
    return (q - zero_point) * scale


def _scale_of_magnitude(greatest: Array, scheme: QuantizationScheme, xp) -> Array:
    """Returns the scale of signed, symmetric integers whose greatest is this magnitude."""
    return _positive(greatest / scheme.qmax, xp)


def _with_zero_point(scale: Array, scheme: QuantizationScheme) -> tuple[Array, np.ndarray]:
    """Returns the scale with the zero point of a scheme that fixes it.

    The zero point is a NumPy array: an operation for it would be traced for each quantizer, or run in each step.
    """
    return scale, np.full(scale.shape, scheme.zero_point, np.float32)


def _positive(scale: Array, xp) -> Array:
    return xp.where(scale > SMALLEST_SCALE, scale, np.float32(SCALE_OF_ZEROS))
