"""The wheel and the sdist install without the repository, and work."""

import importlib.util
import pathlib
import subprocess
import sys
import sysconfig

import pytest

from tensorflow_quantization import __version__

ROOT = pathlib.Path(__file__).parent.parent


def test_citation_names_the_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.slow
def test_wheel_and_sdist_install_and_run_without_the_repository():
    for tool in ("build", "twine"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed")
    dependencies = sysconfig.get_paths()["purelib"]
    command = [sys.executable, ROOT / "scripts" / "release_check.py", "--dependencies", dependencies]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert ".whl installs and runs" in done.stdout
    assert ".tar.gz installs and runs" in done.stdout
