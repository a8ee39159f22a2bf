"""The seconds and the memory that a call takes."""

from __future__ import annotations

import gc
import pathlib
import time
from collections.abc import Callable


def measure_call(call: Callable[[], object]) -> dict[str, float]:
    """Seconds that a call takes, and bytes that this process takes beyond what it had (Linux; else not a number)."""
    gc.collect()
    before = resident("VmRSS", reset_peak=True)
    start = time.perf_counter()
    call()
    return {"seconds": time.perf_counter() - start, "peak": resident("VmHWM") - before}


def resident(entry: str, reset_peak: bool = False) -> float:
    """Bytes of memory, now ("VmRSS") or at most ("VmHWM"), of this process."""
    process = pathlib.Path("/proc/self")
    if not process.exists():
        return float("nan")
    if reset_peak:
        (process / "clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return 1024 * int(status[entry].split()[0])
