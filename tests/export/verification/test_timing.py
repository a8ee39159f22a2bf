import time

import numpy as np
import pytest

from tensorflow_quantization.export.verification.timing import interleaved, summary


def test_contenders_take_turns():
    calls = []
    contenders = {name: lambda name=name: (calls.append(name), time.sleep(0.001 * len(name))) for name in ("a", "aaaa")}
    measured = interleaved(contenders, rounds=4, warmup=1)
    assert [sorted(calls[i : i + 2]) for i in range(0, 10, 2)] == [["a", "aaaa"]] * 5
    (_, first, one), (_, second, ratio) = summary(measured)
    assert one == 1.0 and ratio == pytest.approx(np.median(measured["aaaa"] / measured["a"])) and second > first
