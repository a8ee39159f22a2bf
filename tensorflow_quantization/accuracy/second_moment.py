"""`SecondMoment`: the mean of x xᵀ over the rows that a kernel multiplies.

It is all that a rounding needs to know of the data: if a kernel changes by d, its output changes by xᵀd, with the mean
square dᵀ E[x xᵀ] d (arXiv:2004.10568, equation 13).
"""

from __future__ import annotations

import numpy as np

#: Keeps a constant input from making the moment singular; a fraction of the mean square of all inputs.
_LEAST = 1e-6


class SecondMoment:
    """Estimates E[x xᵀ] from rows, batch by batch, in the memory of the result.

    Few rows show correlations that are not there, so correlations shrink by rows / (rows + K). The means are kept.

    Examples:
        >>> moment = SecondMoment()
        >>> moment.update(np.array([[[1.0, 0.0], [1.0, 2.0]]]))
        >>> moment.estimate().round(2)
        array([[[1., 1.],
                [1., 2.]]])
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0

    def update(self, rows: np.ndarray) -> None:
        """Adds rows, an array (G, N, K)."""
        self.rows += rows.shape[1]
        self._sum = self._sum + rows.sum(axis=1, dtype=np.float64)
        self._products = self._products + np.swapaxes(rows, 1, 2) @ rows

    def estimate(self) -> np.ndarray:
        """Returns the moment, an array (G, K, K); positive definite unless all inputs are zero."""
        mean = np.asarray(self._sum)[..., None] / self.rows
        of_means = mean * np.swapaxes(mean, 1, 2)
        covariance = self._products / self.rows - of_means
        size = covariance.shape[-1]
        kept = self.rows / (self.rows + size)
        moment = kept * covariance + of_means
        diagonal = np.arange(size)
        variance = np.maximum(covariance[:, diagonal, diagonal], 0.0)
        squares = variance + of_means[:, diagonal, diagonal]
        moment[:, diagonal, diagonal] = squares + _LEAST * squares.mean(axis=1, keepdims=True)
        return moment
