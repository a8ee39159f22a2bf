"""Timing that a busy machine does not bend: contenders take turns, and medians are compared."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

import numpy as np


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
