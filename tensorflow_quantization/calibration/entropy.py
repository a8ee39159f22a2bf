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

    Zeros are exact with any range: as in NVIDIA's pytorch-quantization, the bin next to zero counts as much as its
    neighbour. The range is the limit of the best bins, or the least and the greatest value where these are closer.

    The method ignores how far a clipped value moves. It was made for networks with a rectified linear unit after each
    layer; "mse" is better for most.

    Examples:
        >>> estimator = Entropy()
        >>> estimator.update(np.append(np.random.default_rng(0).normal(size=100_000), 50.0))  # one outlier
        >>> low, high = estimator.range(QuantizationScheme())
        >>> print(3 < high < 6)
        True
    """

    def range(self, scheme):
        magnitudes = self.counts[BINS:] + self.counts[:BINS][::-1]
        counts = magnitudes.reshape(_BINS, -1).sum(axis=1).astype(np.float64)
        counts[0] = counts[1]
        levels = 2 ** (scheme.bits - 1)
        sizes = np.arange(levels, 1 + max(levels, int(np.max(np.flatnonzero(counts), initial=0)) + 1))
        best = sizes[np.argmin([_divergence(counts, size, levels) for size in sizes])]
        limit = best * self.limit / _BINS
        return max(self.low, -limit), min(self.high, limit)


def _divergence(counts: np.ndarray, size: int, levels: int) -> float:
    """Returns the divergence of Q from P, infinite if a value of P has no probability in Q.

    Within a level Q is constant, so the sum over its bins is a sum over levels.
    """
    inside = counts[:size]
    p = inside.copy()
    p[-1] += counts[size:].sum()
    total, total_inside = p.sum(), inside.sum()
    if total == 0:
        return 0.0
    starts = np.arange(levels) * size // levels
    in_p, in_q = np.add.reduceat(p, starts), np.add.reduceat(inside, starts)
    bins = np.add.reduceat((p > 0).astype(np.float64), starts)
    used = in_p > 0
    if (in_q[used] == 0).any():
        return np.inf
    entropy = np.sum(p[p > 0] * np.log(p[p > 0] / total))
    cross = np.sum(in_p[used] * np.log(in_q[used] / bins[used] / total_inside))
    return float(entropy - cross) / total
