"""The programs in C++ on the page about deployment compile, and print what the runtimes compute in Python."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from docs_scripts import DOCS, docs_script

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the page writes a .tflite file, too"),
]
run_blocks = docs_script("run_blocks")
PAGE = DOCS / "deployment.md"
PROGRAMS = re.findall(r"^```cpp\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
#: Where the headers of ONNX Runtime are; its package has none.
ONNXRUNTIME_HEADERS = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The current folder, with the files that the first block of the page writes."""
    monkeypatch.chdir(tmp_path)
    exec(run_blocks.blocks(PAGE)[0].code, {"__name__": "page"})
    return np.fromfile("image.raw", "uint8").reshape(1, 32, 32, 3)


def printed(program: str, includes: Path, library: Path, soname: str) -> list[float]:
    """The numbers that a program prints, compiled against a library, which it finds under its soname."""
    if shutil.which("g++") is None:
        pytest.skip("there is no compiler: apt install g++")
    Path("run.cpp").write_text(program)
    if soname != library.name:
        os.symlink(library, soname)
    # Its own folder first: there it finds the libraries beside it.
    where = [f"-I{includes}", f"-L{library.parent}", f"-l:{library.name}", f"-Wl,-rpath,{library.parent},-rpath,."]
    subprocess.run(["g++", "-std=c++17", "run.cpp", *where, "-o", "run"], check=True)
    done = subprocess.run(["./run"], check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]


def test_the_program_for_onnxruntime(files):
    onnxruntime = pytest.importorskip("onnxruntime")
    if not (ONNXRUNTIME_HEADERS / "onnxruntime_cxx_api.h").exists():
        pytest.skip("no headers of ONNX Runtime: unpack a release, and set ONNXRUNTIME_INCLUDE to its include/")
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    found = printed(PROGRAMS[0], ONNXRUNTIME_HEADERS, library, "libonnxruntime.so.1")
    (expected,) = onnxruntime.InferenceSession("onnxruntime.onnx").run(["scores"], {"image": files})
    np.testing.assert_allclose(found, expected[0], rtol=1e-4)


def test_the_program_for_openvino(files):
    openvino = pytest.importorskip("openvino")
    folder = Path(openvino.__file__).parent
    (library,) = folder.glob("libs/libopenvino.so.*")
    found = printed(PROGRAMS[1], folder / "include", library, library.name)
    expected = openvino.Core().compile_model("openvino.onnx", "CPU")({"image": files})["scores"]
    np.testing.assert_allclose(found, expected[0], rtol=1e-4)
