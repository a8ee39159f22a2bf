"""`verify_runtime="tensorrt"`: the file is parsed and built, with and without data."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.export import ExportError, VerificationError
from tensorflow_quantization.export.verification import onnx as verification
from tensorflow_quantization.inspection.runtime import tensorrt_engine


@pytest.fixture
def built(monkeypatch):
    """The shapes for which files are built, in order."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    shapes, build = [], tensorrt_engine.build
    monkeypatch.setattr(tensorrt_engine, "build", lambda path, given: shapes.append(given) or build(path, given))
    return shapes


@pytest.fixture
def quantized(cnn, images):
    return calibrate(quantize_model(cnn, target="tensorrt"), images[0], verbose=0)


def test_a_file_is_built_for_one_sample(tmp_path, quantized, built):
    export_onnx(quantized, tmp_path / "m.onnx", verify_runtime="tensorrt")
    assert [list(shapes.values()) for shapes in built] == [[(1, *quantized.inputs[0].shape[1:])]]


def test_numbers_are_compared_as_without_verify_runtime(tmp_path, quantized, images, built, monkeypatch):
    runtimes, verify = [], verification.verify_onnx
    monkeypatch.setattr(verification, "verify_onnx", lambda *args: runtimes.append(args[-1]) or verify(*args))
    export_onnx(
        quantized, tmp_path / "m.onnx", input_layout="channels_first", verify_with=images[0], verify_runtime="tensorrt"
    )
    assert runtimes == ["onnxruntime"]
    assert [list(shapes.values()) for shapes in built] == [[np.moveaxis(images[0], -1, 1).shape]]


def test_a_file_that_is_not_built_is_not_written(tmp_path, cnn, images, built):
    model = calibrate(quantize_model(cnn, target="onnxruntime"), images[0], verbose=0)
    with pytest.raises(VerificationError, match=r"TensorRT for RTX .* cannot build the file: .*quant_") as caught:
        export_onnx(model, tmp_path / "m.onnx", verify_runtime="tensorrt")
    assert "No file was written" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_unknown_sizes_need_data(tmp_path, built):
    inputs = keras.Input((None, None, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    with pytest.raises(ExportError, match=r"input 'image' has the shape \(None, None, None, 3\)\. Pass verify_with"):
        export_onnx(model, tmp_path / "m.onnx", verify_runtime="tensorrt")
    data = np.random.default_rng(0).normal(size=(2, 9, 7, 3)).astype("float32")
    export_onnx(model, tmp_path / "m.onnx", verify_with=data, verify_runtime="tensorrt")
    assert [list(shapes.values()) for shapes in built] == [[(2, 9, 7, 3)]]


def test_a_builder_that_is_not_installed_is_named(tmp_path, cnn, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(ImportError, match=r"pip install 'tensorflow-quantization\[tensorrt\]'"):
        export_onnx(cnn, tmp_path / "m.onnx", verify_runtime="tensorrt")
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_target_that_is_not_built_says_what_to_do(tmp_path, cnn, images):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    model = calibrate(quantize_model(cnn, target="onnxruntime"), images, verbose=0)
    with pytest.raises(VerificationError, match=r"is for 'onnxruntime': quantize_model\(target='tensorrt'\)"):
        export_onnx(model, tmp_path / "m.onnx", verify_runtime="tensorrt")
    assert not list(tmp_path.iterdir())
