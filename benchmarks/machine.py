"""What a figure was measured on, to be written beside it."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Iterable

#: Of a processor: what decides how fast it multiplies.
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")


def machine(packages: Iterable[str]) -> str:
    """The processor, and the versions of those packages that are installed."""
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{_processor()}, {_cores()}; {', '.join(versions)}"


def _cores() -> str:
    """How many cores this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "one core" if count == 1 else f"{count} cores"


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    features = [name for name in _FEATURES if name in facts.get("flags", "").split()]
    return facts.get("model name", platform.machine()) + (f" ({', '.join(features)})" if features else "")
