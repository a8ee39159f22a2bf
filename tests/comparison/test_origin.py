"""A file that was written from a model before its calibration or its training, or for another target, is refused."""

import faulty_models
import keras
import numpy as np
import pytest
import small_models
from keras import layers

from tensorflow_quantization import calibrate, compare, export_litert, export_onnx, quantize_model

TARGETS = ["onnxruntime", "openvino", "litert"]


def quantized(model, data, target, **options):
    return calibrate(quantize_model(model, target=target, **options), data, verbose=0)


def written(model, target, folder):
    if target == "litert":
        pytest.importorskip("ai_edge_litert")
        if keras.backend.backend() != "tensorflow":
            pytest.skip("LiteRT files are written on TensorFlow")
        return export_litert(model, folder / "model.tflite")
    pytest.importorskip(target or "onnxruntime")
    return export_onnx(model, folder / "model.onnx")


@pytest.mark.parametrize("target", TARGETS)
def test_another_calibration(target, tmp_path):
    model, data = faulty_models.chain(), faulty_models.images()
    path = written(quantized(model, 0.5 * data, target), target, tmp_path)
    with pytest.raises(
        ValueError,
        match=r"not written from 'chain' as it is now: the ranges of quantizers in image, .* another model or calibr",
    ):
        compare(model, quantized(model, data, target), data, file=path)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_from_before_a_training(target, tmp_path):
    model, data = faulty_models.chain(), faulty_models.images()
    q_model = quantized(model, data, target)
    path = written(q_model, target, tmp_path)
    kernel = q_model.get_layer("quant_conv2").layer.kernel
    kernel.assign(kernel + np.random.default_rng(0).normal(size=kernel.shape, scale=0.01))
    with pytest.raises(ValueError, match=r"the quantized weights of conv2 are others, as before a training\. Pass"):
        compare(model, q_model, data, file=path)


@pytest.mark.parametrize("target", TARGETS)
def test_other_numbers_of_channels(target, tmp_path):
    def build(filters):
        inputs = keras.Input((8, 8, 3), name="image")
        x = layers.Conv2D(filters, 3, activation="relu", name="first")(inputs)
        return keras.Model(inputs, layers.Conv2D(2, 3, name="last")(x), name="net")

    data = np.random.default_rng(0).random((8, 8, 8, 3), "float32")
    path = written(quantized(build(6), data, target), target, tmp_path)
    with pytest.raises(ValueError, match=r"not written from 'net' as it is now: the ranges of quantizers in "):
        model = build(4)
        compare(model, quantized(model, data, target), data, file=path)


@pytest.mark.parametrize(("of_file", "of_model"), [("tensorrt", "onnxruntime"), ("onnxruntime", "tensorrt")])
def test_another_target(of_file, of_model, tmp_path):
    model, data = faulty_models.mobile(), faulty_models.images()
    path = export_onnx(quantized(model, data, of_file), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"not written from 'mobile'.*(other quantizers|not the quantizers|others)"):
        compare(model, quantized(model, data, of_model), data, file=path)


@pytest.mark.parametrize("options", [{}, {"precision": "float16"}, {"opset": 21}, {"target": "onnxruntime"}])
def test_options_of_the_export_make_no_difference(options, tmp_path):
    model, data = faulty_models.dense(), faulty_models.signals()
    q_model = quantized(model, data, None)
    report = compare(model, q_model, data, file=export_onnx(q_model, tmp_path / "model.onnx", **options))
    assert report.file_snr > 30


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("build", [small_models.residual, small_models.nested, small_models.operations])
def test_files_of_the_model_itself(build, target, tmp_path):
    model = build()
    data = np.random.default_rng(0).normal(size=(8, *model.inputs[0].shape[1:])).astype("float32")
    q_model = quantized(model, data, target)
    assert compare(model, q_model, data, file=written(q_model, target, tmp_path)).file_snr > 30


def test_weights_in_blocks(tmp_path):
    inputs = keras.Input((64,), name="x")
    model = keras.Model(inputs, layers.Dense(16, name="last")(layers.Dense(32, name="first")(inputs)), name="dense")
    data = np.random.default_rng(0).normal(size=(8, 64)).astype("float32")
    q_model = quantized(model, data, "onnxruntime", block_size=16)
    path = export_onnx(q_model, tmp_path / "model.onnx")
    assert compare(model, q_model, data, file=path).file_snr > 30
    q_model.get_layer("quant_last").layer.kernel.assign(-q_model.get_layer("quant_last").layer.kernel)
    with pytest.raises(ValueError, match="the quantized weights of last are others"):
        compare(model, q_model, data, file=path)
