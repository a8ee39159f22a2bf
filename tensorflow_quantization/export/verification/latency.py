"""`median_latencies`: the latency of files in their runtime."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES

#: Runs that are not counted, and runs of which the median counts.
_WARM_UP, RUNS = 5, 50


def median_latencies(runtime: str, files: Sequence[tuple[Path, Mapping[str, np.ndarray]]]) -> list[float]:
    """Returns the median seconds of a run of each file. The files take turns, so that a busy machine slows all alike.

    Args:
        runtime: a key of `RUNTIMES`.
        files: the path of each file, and what it runs on, an array for each input by its name.

    Raises:
        ImportError: the runtime is not installed. Other errors are those of the runtime.
    """
    loaded = [(RUNTIMES[runtime].load(path, []), dict(inputs)) for path, inputs in files]
    seconds = np.zeros((_WARM_UP + RUNS, len(files)))
    for turn in seconds:
        for index, (run, inputs) in enumerate(loaded):
            start = time.perf_counter()
            run(inputs)
            turn[index] = time.perf_counter() - start
    return [float(median) for median in np.median(seconds[_WARM_UP:], axis=0)]
