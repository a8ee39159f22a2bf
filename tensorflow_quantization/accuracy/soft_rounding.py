"""`SoftRounding`: whether a weight goes up or down, as a number between 0 and 1 that a gradient moves (AdaRound)."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from tensorflow_quantization.accuracy.kernels import Kernel

#: The rectified sigmoid reaches 0 and 1 (arXiv:2004.10568, equation 23).
_LOW, _HIGH = -0.1, 1.1
#: Where a weight that is rounded up starts: near enough to 1 that the block computes what it does once it is rounded,
#: far enough that there is a gradient.
_START = 0.9


class SoftRounding:
    """The rounding of a kernel between two neighbouring integers.

    Args:
        kernel: the kernel. Its weights now are a rounding, from which the search starts.
        exact: the kernel before rounding.

    Attributes:
        start: float32, in the shape of the kernel: values for `value`, which `assign` turns into the rounding that the
            kernel has.
    """

    def __init__(self, kernel: Kernel, exact: np.ndarray):
        self.kernel = kernel
        # As kernels of the layer: `weight` is called in each training step.
        self._fixed, self._scale, self._pinned = map(kernel.form.kernel, kernel.matrices())
        scheme = kernel.quantizer.scheme
        integers = np.clip(np.round(self._fixed / self._scale), scheme.qmin, scheme.qmax)
        exact = np.clip(exact / self._scale, scheme.qmin, scheme.qmax)
        # The rounding may be the second nearest integer: the other choice is the one on the side of the exact weight.
        is_up = np.where(exact == integers, integers == scheme.qmax, exact < integers)
        self._floor = integers - is_up
        part = np.where(is_up, _START, 1 - _START)
        self.start = np.log((part - _LOW) / (_HIGH - part)).astype(np.float32)

    def weight(self, value: Any) -> Any:
        """Returns the kernel in the shape of the layer, float32, for a tensor that `start` is the start of."""
        floor, scale, fixed = (ops.convert_to_tensor(x, "float32") for x in (self._floor, self._scale, self._fixed))
        pinned = ops.convert_to_tensor(self._pinned)
        return ops.where(pinned, fixed, (floor + rectified_sigmoid(value)) * scale)

    def assign(self, value: np.ndarray) -> None:
        """Sets the kernel to the nearer integers."""
        rounded = np.where(self._pinned, self._fixed, (self._floor + (value >= 0.0)) * self._scale)
        self.kernel.assign(self.kernel.form.matrix(rounded))


def rectified_sigmoid(value: Any) -> Any:
    """Returns clip(sigmoid(value) * 1.2 - 0.1, 0, 1), see arXiv:2004.10568, equation 23."""
    return ops.clip(ops.sigmoid(value) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)


def indecision(value: Any, sharpness: Any) -> Any:
    """Returns the mean of 1 - |2 h - 1|**sharpness for h = rectified_sigmoid(value): 0 where all is decided.

    With a sharpness that falls, from 20 to 2, values near the middle are free at first (arXiv:2004.10568, equation 24).
    """
    distance = ops.abs(2.0 * rectified_sigmoid(value) - 1.0)
    return ops.mean(1.0 - ops.power(ops.maximum(distance, 1e-6), sharpness))
