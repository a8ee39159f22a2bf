"""A step of a benchmark in a fresh process: what a runtime leaves behind does not disturb the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def run_step(
    script: str,
    step: str,
    *arguments: object,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> Any:
    """Runs `python SCRIPT --step STEP ARGUMENTS ...`; returns its last line, which is JSON.

    Args:
        script: the path of the benchmark.
        step, *arguments: what the benchmark's `--step` takes.
        python: the interpreter; by default this one.
        variables: environment variables to set in the new process.

    Raises:
        RuntimeError: the step failed; the message has the end of what it printed.
    """
    command = [python, script, "--step", step, *map(str, arguments)]
    environment = os.environ | dict(variables or {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{step} of {arguments} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])
