import sys

import numpy as np
import pytest
from qdq_files import QdqFile

from tensorflow_quantization import export_onnx
from tensorflow_quantization.export import ExportError
from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES


@pytest.mark.parametrize("name", RUNTIMES)
def test_outputs_come_first_then_the_tensors_asked_for(tmp_path, name):
    pytest.importorskip(name)
    file = QdqFile()
    integers, scale, zero = file.quantize(file.input((2, 3)), scale=0.5, zero=10)
    y = file.op("DequantizeLinear", integers, scale, zero)
    path = tmp_path / "m.onnx"
    file.save(path, file.op("Neg", y), file.op("Relu", y))
    x = np.array([[0.6, -0.2, 1e6], [-1.0, -1e6, 0.26]], "float32")
    negative, positive, found = RUNTIMES[name].load(path, [integers])({"x": x})
    np.testing.assert_array_equal(found, [[11, 10, 255], [8, 0, 11]])
    np.testing.assert_array_equal(negative, (10.0 - found) / 2)
    np.testing.assert_array_equal(positive, np.maximum(found - 10.0, 0) / 2)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("name", RUNTIMES)
def test_what_is_not_installed_is_named(tmp_path, cnn, images, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'tensorflow-quantization\[{name}\]'"):
        export_onnx(cnn, tmp_path / "m.onnx", verify_with=images[0], verify_runtime=name)
    assert not list(tmp_path.iterdir())


def test_unknown_runtime(tmp_path, cnn, images):
    with pytest.raises(ExportError, match=r"verify_runtime must be one of .*Did you mean 'openvino'"):
        export_onnx(cnn, tmp_path / "m.onnx", verify_with=images[0], verify_runtime="openvin")
