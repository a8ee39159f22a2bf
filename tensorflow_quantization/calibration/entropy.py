"""`Entropy`: the range with the least loss of information."""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.calibration.histogram import BINS, Histogram

#: Bins of abs(x), as published. A histogram uses at least half of its 4096 bins on a side: pairs of bins merge.
_BINS = BINS // 2


class Entropy(Histogram):
    """Estimates the range whose quantized distribution has the least Kullback-Leibler divergence from that of abs(x).

    The method of TensorRT (S. Migacz, "8-bit inference with TensorRT", GTC 2017) and ONNX Runtime. For each number of
    bins from 2**(bits - 1) to 2048:

    - P is the distribution in these bins; the last bin also counts all values above;
    - Q is the distribution without the values above, in 2**(bits - 1) levels; each level spreads its values evenly over
      its bins that are not empty in P;
    - the divergence is sum(P * log(P / Q)).

    Numbers of bins that leave all values of P in one bin are left out. Zeros are exact with any range: as in NVIDIA's
    pytorch-quantization, the bin next to zero counts as much as its neighbour. The range is the limit of the best bins,
    or the least and the greatest value where these are closer.

    The method ignores how far a clipped value moves, and clips too much where a tensor has fewer than some ten thousand
    values in all. It was made for networks with a rectified linear unit after each layer; "mse" is better for most.

    Examples:
        >>> estimator = Entropy()
        >>> estimator.update(np.append(np.random.default_rng(0).normal(size=100_000), 50.0))  # one outlier
        >>> low, high = estimator.range(QuantizationScheme())
        >>> print(3 < high < 6)
        True
    """

    def range(self, scheme):
        if self.is_coarser_than(scheme):
            return self.low, self.high
        magnitudes = self.counts[BINS:] + self.counts[:BINS][::-1]
        counts = magnitudes.reshape(_BINS, -1).sum(axis=1).astype(np.float64)
        counts[0] = counts[1]
        levels = 2 ** (scheme.bits - 1)
        sizes = np.arange(levels, 1 + max(levels, int(np.max(np.flatnonzero(counts), initial=0)) + 1))
        # With all values of P in one bin, any Q is P: the range of 288 ± 8 would end at the least value.
        tells = np.cumsum(counts > 0)[sizes - 1] > 1
        sizes = sizes[tells | (sizes == sizes[-1])]
        best = sizes[np.argmin(_divergences(counts, sizes, levels))]
        limit = best * self.limit / _BINS
        return max(self.low, -limit), min(self.high, limit)


def _divergences(counts: np.ndarray, sizes: np.ndarray, levels: int) -> np.ndarray:
    """Returns the divergence of Q from P for each number of bins; infinite if a value of P has no probability in Q.

    Q is constant within a level, so the sum over bins is a sum over levels, from differences of cumulative sums.
    """
    ends = np.arange(levels + 1) * sizes[:, None] // levels
    in_q, bins = (np.diff(_cumulative(x)[ends]) for x in (counts, counts > 0))
    inside = _cumulative(counts)[sizes]
    total = counts.sum()
    last = counts[sizes - 1] + total - inside  # in P
    in_p = in_q.copy()
    in_p[:, -1] += total - inside
    bins[:, -1] += (counts[sizes - 1] == 0) & (last > 0)
    entropy = _cumulative(_x_log(counts, counts))[sizes - 1] + _x_log(last, last)  # of P, not normalized
    if total == 0:
        return np.zeros(len(sizes))
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = _x_log(in_p, in_q / bins).sum(axis=1)
        return np.where(inside > 0, (entropy - cross) / total + np.log(inside / total), np.inf)


def _cumulative(x: np.ndarray) -> np.ndarray:
    """Returns the sums of the first 0, 1, 2, ... values."""
    return np.concatenate([[0.0], np.cumsum(x, dtype=np.float64)])


def _x_log(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns x * log(y), 0 where x is."""
    return np.where(x > 0, x * np.log(np.where(x > 0, y, 1.0)), 0.0)
