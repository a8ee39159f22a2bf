"""`SecondMoment`: the mean of x xᵀ over the rows that a kernel multiplies, and `Regression` on the rows in float.

The moment is all that a rounding needs to know of the data: if a kernel changes by d, its output changes by xᵀd, with
the mean square dᵀ E[x xᵀ] d (arXiv:2004.10568, equation 13).
"""

from __future__ import annotations

import numpy as np

#: Keeps a constant input from making the moment singular; a fraction of the mean square of all inputs.
_LEAST = 1e-6


class SecondMoment:
    """Estimates E[x xᵀ] from rows, batch by batch, in the memory of the result.

    Few samples show correlations that are not there, so correlations shrink by samples / (samples + K). Rows of one
    sample are alike: they count as one. The means are kept.

    Examples:
        >>> moment = SecondMoment()
        >>> moment.update(np.array([[[1.0, 0.0], [1.0, 2.0]]]), samples=2)
        >>> moment.estimate().round(2)
        array([[[1., 1.],
                [1., 2.]]])
    """

    def __init__(self) -> None:
        self.rows = self.samples = 0
        self._sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0

    def update(self, rows: np.ndarray, samples: int) -> None:
        """Adds rows, an array (G, N, K), of a number of samples."""
        self.rows += rows.shape[1]
        self.samples += samples
        self._sum = self._sum + rows.sum(axis=1, dtype=np.float64)
        self._products = self._products + np.swapaxes(rows, 1, 2) @ rows

    @property
    def mean(self) -> np.ndarray:
        """The mean of the rows, an array (G, K)."""
        return np.asarray(self._sum) / self.rows

    @property
    def covariance(self) -> np.ndarray:
        """The covariance of the rows, an array (G, K, K)."""
        return self._products / self.rows - _outer(self.mean, self.mean)

    def estimate(self) -> np.ndarray:
        """Returns the moment, an array (G, K, K); positive definite unless all inputs are zero."""
        of_means, covariance = _outer(self.mean, self.mean), self.covariance
        size = covariance.shape[-1]
        kept = self.samples / (self.samples + size)
        moment = kept * covariance + of_means
        diagonal = np.arange(size)
        variance = np.maximum(covariance[:, diagonal, diagonal], 0.0)
        squares = variance + of_means[:, diagonal, diagonal]
        moment[:, diagonal, diagonal] = squares + _LEAST * squares.mean(axis=1, keepdims=True)
        return moment


class Regression:
    """Finds the kernel that makes of the rows of a quantized model what the float kernel makes of the float rows.

    What the layers before changed is no noise alone: a kernel can make up for a part of it (arXiv:2504.02692). Ridge
    regression gives the kernel (C + r I)⁻¹ (B + r I) w, where C is the covariance of the rows, B the one between rows
    and float rows, and w the float kernel. A bias takes care of the means. Rows of one sample are alike, so r, in mean
    squares of an input, is the inputs over the samples.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(1, 4096, 2))
        >>> moment, regression = SecondMoment(), Regression()
        >>> moment.update(0.5 * x, samples=4096)
        >>> regression.update(0.5 * x, x)
        >>> regression.kernel(np.array([[[1.0], [3.0]]]), moment).round(1)
        array([[[2.],
                [6.]]])
    """

    def __init__(self) -> None:
        self.rows = 0
        self._float_sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0

    def update(self, rows: np.ndarray, float_rows: np.ndarray) -> None:
        """Adds rows, arrays (G, N, K)."""
        self.rows += rows.shape[1]
        self._float_sum = self._float_sum + float_rows.sum(axis=1, dtype=np.float64)
        self._products = self._products + np.swapaxes(rows, 1, 2) @ float_rows

    def kernel(self, weight: np.ndarray, moment: SecondMoment) -> np.ndarray:
        """Returns the kernel; where all inputs are constant, the float kernel.

        Args:
            weight: the float kernel, (G, K, M).
            moment: of the same rows.
        """
        covariance, size = moment.covariance, weight.shape[1]
        crossed = self._products / self.rows - _outer(moment.mean, np.asarray(self._float_sum) / self.rows)
        square = np.maximum(np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1), 0.0)[:, None, None]
        ridge = np.where(square > 0.0, size / moment.samples * square, 1.0)
        solution = np.linalg.solve(covariance + ridge * np.eye(size), crossed @ weight + ridge * weight)
        return np.where(square > 0.0, solution, weight).astype(weight.dtype)


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the products of all elements, (G, K, K), of arrays (G, K)."""
    return a[..., None] * b[:, None]
