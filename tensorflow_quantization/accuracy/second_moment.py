"""`SecondMoment`: the mean of x xᵀ over the rows that a kernel multiplies, and `Regression` on the rows in float.

The moment is all that a rounding needs to know of the data: if a kernel changes by d, its output changes by xᵀd, with
the mean square dᵀ E[x xᵀ] d (arXiv:2004.10568, equation 13).
"""

from __future__ import annotations

import numpy as np

#: Keeps a constant input from making the moment singular; a fraction of the mean square of all inputs.
_LEAST = 1e-6
#: How strongly a regression is held at the kernel that it starts from, where there are as many samples as inputs.
_RIDGE = 1.0


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
        self._rows = self._samples = 0
        self._sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0

    def update(self, rows: np.ndarray, samples: int) -> None:
        """Adds rows, an array (G, N, K), of a number of samples."""
        rows = np.ascontiguousarray(rows)  # without, matrix products of many groups take ten times as long
        self._rows += rows.shape[1]
        self._samples += samples
        self._sum = self._sum + rows.sum(axis=1, dtype=np.float64)
        self._products = self._products + np.swapaxes(rows, 1, 2) @ rows

    def estimate(self) -> np.ndarray:
        """Returns the moment, an array (G, K, K); positive definite unless all inputs are zero."""
        mean = np.asarray(self._sum)[..., None] / self._rows
        of_means = mean * np.swapaxes(mean, 1, 2)
        covariance = self._products / self._rows - of_means
        size = covariance.shape[-1]
        kept = self._samples / (self._samples + size)
        moment = kept * covariance + of_means
        diagonal = np.arange(size)
        variance = np.maximum(covariance[:, diagonal, diagonal], 0.0)
        squares = variance + of_means[:, diagonal, diagonal]
        moment[:, diagonal, diagonal] = squares + _LEAST * squares.mean(axis=1, keepdims=True)
        return moment


class Regression:
    """Finds the kernel that makes of the rows of a quantized model what the float kernel makes of the float rows.

    What the layers before changed is no noise alone: a kernel can make up for a part of it (arXiv:2504.02692). The
    kernel is that of ridge regression, (C + r I)⁻¹ (B + r I) w, where C is the covariance of the rows, B that of the
    rows with the float rows, and w the float kernel. A bias takes care of the means. Rows of one sample are alike, so
    r, in mean squares of an input, is the inputs over the samples.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(1, 4096, 2))
        >>> regression = Regression()
        >>> regression.update(0.5 * x, x, samples=4096)
        >>> regression.kernel(np.array([[[1.0], [3.0]]])).round(1)
        array([[[2.],
                [6.]]])
    """

    def __init__(self) -> None:
        self.samples = 0
        self._rows = 0
        self._sum: np.ndarray | float = 0.0
        self._float_sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0
        self._float_products: np.ndarray | float = 0.0

    def update(self, rows: np.ndarray, float_rows: np.ndarray, samples: int) -> None:
        """Adds rows, arrays (G, N, K), of a number of samples."""
        rows, float_rows = np.ascontiguousarray(rows), np.ascontiguousarray(float_rows)
        self._rows += rows.shape[1]
        self.samples += samples
        self._sum = self._sum + rows.sum(axis=1, dtype=np.float64)
        self._float_sum = self._float_sum + float_rows.sum(axis=1, dtype=np.float64)
        self._products = self._products + np.swapaxes(rows, 1, 2) @ rows
        self._float_products = self._float_products + np.swapaxes(rows, 1, 2) @ float_rows

    def kernel(self, weight: np.ndarray) -> np.ndarray:
        """Returns the kernel, (G, K, M), for the float kernel (G, K, M); that itself where all inputs are constant."""
        mean, float_mean = (np.asarray(total) / self._rows for total in (self._sum, self._float_sum))
        covariance = self._products / self._rows - mean[..., None] * mean[:, None]
        crossed = self._float_products / self._rows - mean[..., None] * float_mean[:, None]
        size = weight.shape[1]
        square = np.maximum(np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1), 0.0)[:, None, None]
        ridge = np.where(square > 0.0, _RIDGE * size / self.samples * square, 1.0)
        solution = np.linalg.solve(covariance + ridge * np.eye(size), crossed @ weight + ridge * weight)
        return np.where(square > 0.0, solution, weight).astype(weight.dtype)
