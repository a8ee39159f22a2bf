"""Timing that a busy machine does not bend: contenders take turns, and medians are compared."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping

import numpy as np

#: Consecutive rounds are slow or fast together on a busy machine (correlations up to 0.7 measured); the medians of so
#: many blocks of rounds are nearly independent.
_BLOCKS = 10


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3, lead: int = 0
) -> dict[str, np.ndarray]:
    """Seconds of each call: in every round, each contender is called once, in random order.

    Args:
        contenders: by name; the first one is what the others are compared with.
        rounds: how many calls of each count.
        warmup: how many calls of each go before and do not.
        lead: how many calls go before each that counts, of the same contender: what the one before left in the caches
            and its threads that still spin are then not in the way.
    """
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.freeze()  # else each collection walks through all objects of the backend, which takes half a second
    try:
        for round_ in range(warmup + rounds):
            for index in rng.permutation(len(contenders)):
                name, call = list(contenders.items())[index]
                for _ in range(lead):
                    call()
                gc.collect()  # garbage of one contender is not collected at the cost of the next
                start = time.perf_counter()
                call()
                if round_ >= warmup:
                    seconds[name].append(time.perf_counter() - start)
    finally:
        gc.unfreeze()
    return {name: np.array(values) for name, values in seconds.items()}


def summary(seconds: Mapping[str, np.ndarray]) -> list[tuple[str, float, float]]:
    """(name, median milliseconds, median over the rounds of the ratio to the first contender) of each."""
    base = next(iter(seconds.values()))
    return [(name, 1e3 * float(np.median(s)), float(np.median(s / base))) for name, s in seconds.items()]


def ratio_interval(seconds: np.ndarray, base: np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """Returns an interval that holds the median of the ratios of rounds; `None` for less than 6 rounds.

    The interval is between the k-th smallest and the k-th largest of B ratios. The median is outside with a probability
    of 2 P(X < k), where X is binomial with B trials of probability 1/2, for any distribution (H. A. David and H. N.
    Nagaraja, Order Statistics, 3rd ed., section 7.1); k is the greatest for which this is at most `1 - confidence`.

    The B ratios are medians of blocks of an odd number of consecutive rounds: the median of such medians is the median
    of single rounds, and unlike single rounds they are nearly independent.

    What differs between processes, such as the place of the weights in memory, is not in the interval.

    Args:
        seconds, base: of each round, as `interleaved` returns them.
        confidence: the least probability that the median is in the interval. Default: 0.95.

    >>> ratio_interval(np.arange(1.0, 11.0), np.ones(10))
    (2.0, 9.0)
    """
    rounds = len(seconds)
    size = max(1, (rounds // _BLOCKS - 1) // 2 * 2 + 1)
    used = rounds // size * size
    ratios = np.sort(np.median((seconds[:used] / base[:used]).reshape(-1, size), axis=1))
    count, k, outside = len(ratios), 0, 0.0
    while 2 * (outside := outside + math.comb(count, k) / 2**count) <= 1 - confidence:
        k += 1
    return (float(ratios[k - 1]), float(ratios[count - k])) if k else None
