"""OpenVINO on files that end its process, or that it does not compile in time."""

import random
from pathlib import Path

import pytest
from mutations import mutate_graph
from qdq_files import QdqFile

from tensorflow_quantization import runtime_report

pytest.importorskip("openvino")

from tensorflow_quantization.inspection.runtime import openvino_graph

MUTATIONS = 12


@pytest.fixture
def path(tmp_path):
    """The file of a quantized convolution."""
    f = QdqFile()
    return Path(f.save(tmp_path / "m.onnx", f.pair(f.op("Relu", f.conv(f.pair(f.input()))))))


def test_a_file_that_is_not_compiled_in_time_is_refused(path, monkeypatch):
    monkeypatch.setattr(openvino_graph, "_MOST_SECONDS", 0.01)  # the process does not even start in this time
    with pytest.raises(ValueError, match=r"does not load .*m\.onnx: it did not compile the file in 0\.01 s, and was"):
        runtime_report(path, "openvino")


def test_changed_files_are_compiled_or_refused(path):
    data = path.read_bytes()
    for seed in range(MUTATIONS):
        path.write_bytes(mutate_graph(data, random.Random(seed)))
        try:
            str(runtime_report(path, "openvino"))
        except Exception as error:
            assert type(error) in (ValueError, FileNotFoundError), f"seed {seed}: {error!r}"
