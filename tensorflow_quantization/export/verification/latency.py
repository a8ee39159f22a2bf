"""`median_latencies`: the latency of files in their runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES
from tensorflow_quantization.export.verification.timing import interleaved

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
    calls = {
        str(index): partial(RUNTIMES[runtime].load(path, []), dict(inputs))
        for index, (path, inputs) in enumerate(files)
    }
    return [float(np.median(seconds)) for seconds in interleaved(calls, RUNS, _WARM_UP).values()]
