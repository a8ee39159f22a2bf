"""A step of a benchmark in a fresh process: what a runtime leaves behind does not disturb the next."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def run_step(script: str, step: str, *arguments: object) -> Any:
    """Runs `python SCRIPT --step STEP ARGUMENTS ...`; returns its last line, which is JSON.

    Raises:
        RuntimeError: the step failed; the message has the end of what it printed.
    """
    command = [sys.executable, script, "--step", step, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{step} of {arguments} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])
