"""SavedModel directories, through tf2onnx."""

import os
import sys

import keras
import numpy as np
import pytest
from onnx_models import run
from small_models import cnn, images

from tensorflow_quantization import calibrate, quantize_model, utils
from tensorflow_quantization.export import ExportError

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a SavedModel is TensorFlow's")


@pytest.fixture
def directory(tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    return tmp_path / "saved_model"


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
def test_directory_computes_what_keras_does(directory, tmp_path, quantized):
    model = cnn()
    if quantized:
        model = calibrate(quantize_model(model), images()[0], verbose=0)
    model.export(directory, verbose=False)
    utils.convert_saved_model_to_onnx(directory, tmp_path / "m.onnx")
    (actual,) = run(tmp_path / "m.onnx", [images()[0]])
    np.testing.assert_allclose(actual, model.predict(images()[0], verbose=0), rtol=1e-4, atol=1e-4)


def test_directory_that_cannot_be_read_leaves_the_old_file(directory, tmp_path):
    os.mkdir(directory)
    (directory / "saved_model.pb").write_bytes(b"nothing")
    (tmp_path / "m.onnx").write_text("old")
    with pytest.raises(ExportError, match="tf2onnx cannot convert"):
        utils.convert_saved_model_to_onnx(directory, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "old"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_of_keras_need_no_tf2onnx(tmp_path, suffix, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    model = calibrate(quantize_model(cnn()), images()[0], verbose=0)
    model.save(tmp_path / f"m{suffix}")
    utils.convert_saved_model_to_onnx(tmp_path / f"m{suffix}", tmp_path / "m.onnx")
    (actual,) = run(tmp_path / "m.onnx", [images()[0]], optimize=False)
    np.testing.assert_allclose(actual, model.predict(images()[0], verbose=0), rtol=1e-4, atol=1e-4)


def test_missing_tf2onnx_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    os.mkdir(tmp_path / "saved_model")
    (tmp_path / "saved_model" / "saved_model.pb").touch()
    with pytest.raises(ImportError, match="pip install tf2onnx"):
        utils.convert_saved_model_to_onnx(tmp_path / "saved_model", tmp_path / "m.onnx")
