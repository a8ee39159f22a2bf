import time

import numpy as np
import pytest

from tensorflow_quantization.export.verification.timing import interleaved, ratio_interval, summary


def test_contenders_take_turns():
    calls = []
    contenders = {name: lambda name=name: (calls.append(name), time.sleep(0.001 * len(name))) for name in ("a", "aaaa")}
    measured = interleaved(contenders, rounds=4, warmup=1)
    assert [sorted(calls[i : i + 2]) for i in range(0, 10, 2)] == [["a", "aaaa"]] * 5
    (_, first, one), (_, second, ratio) = summary(measured)
    assert one == 1.0 and ratio == pytest.approx(np.median(measured["aaaa"] / measured["a"])) and second > first


def test_the_interval_holds_the_median_as_often_as_it_says():
    rng, base = np.random.default_rng(0), np.ones(50)
    intervals = [ratio_interval(rng.lognormal(0.0, 0.5, 50), base) for _ in range(2000)]
    # 10 blocks, and between the second of both ends: 1 - 2 (1 + 10) / 2**10 = 0.979
    assert np.mean([low <= 1.0 <= high for low, high in intervals]) == pytest.approx(0.979, abs=0.01)


def test_rounds_that_are_slow_together_make_the_interval_wide():
    """Of each 10 rounds, 5 in succession take three times as long: the median is not known."""
    low, high = ratio_interval(np.tile(np.repeat([1.0, 3.0], 5), 5), np.ones(50))
    assert (low, high) == (1.0, 3.0)


def test_few_rounds_have_no_interval():
    assert ratio_interval(np.ones(5), np.ones(5)) is None
    assert ratio_interval(np.arange(1.0, 7.0), np.ones(6)) == (1.0, 6.0)
