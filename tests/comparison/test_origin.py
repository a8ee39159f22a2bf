"""A file that was written from a model before its calibration or its training, or for another target, is refused."""

import faulty_models
import keras
import numpy as np
import pytest
import small_models
from keras import layers

from tensorflow_quantization import calibrate, compare, export_litert, export_onnx, quantize_model
from tensorflow_quantization.export import ExportError

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


def floats():
    """A folded BatchNormalization, a LayerNormalization, and a Dense with a bias."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.LayerNormalization(name="layer_norm")(x)
    outputs = layers.Dense(5, name="last")(layers.Flatten(name="flatten")(x))
    return keras.Model(inputs, outputs, name="floats")


def tokens():
    inputs = keras.Input((6,), name="ids", dtype="int32")
    x = layers.Embedding(20, 8, name="embedding")(inputs)
    x = layers.Dense(8, activation="relu", name="first")(x)
    return keras.Model(inputs, layers.Dense(5, name="last")(layers.Flatten(name="flatten")(x)), name="tokens")


def inner(model, name):
    """The layer of a name, without its wrapper."""
    layer = next(layer for layer in model.layers if layer.name in (name, f"quant_{name}"))
    return getattr(layer, "layer", layer)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("layer", "weight", "named"),
    [("norm", "moving_mean", "(conv|norm)"), ("layer_norm", "gamma", "layer_norm"), ("last", "bias", "last")],
)
def test_floats_from_before_a_training(layer, weight, named, target, precision, tmp_path):
    pytest.importorskip("openvino" if target == "openvino" else "onnxruntime")
    model, data = floats(), np.random.default_rng(0).random((8, 8, 8, 3), "float32")
    q_model = quantized(model, data, target)
    path = export_onnx(q_model, tmp_path / "model.onnx", precision=precision)
    assert compare(model, q_model, data, file=path).file_snr > 30
    variable = getattr(inner(q_model, layer), weight)
    variable.assign(variable + [0.1, 0.2, -0.1, 0, 0.3][: variable.shape[0]])
    with pytest.raises(ValueError, match=rf"the (float|quantized) weights of {named} are others, as before a training"):
        compare(model, q_model, data, file=path)


@pytest.mark.parametrize("target", TARGETS)
def test_an_embedding_from_before_a_training(target, tmp_path):
    model, data = tokens(), np.random.default_rng(0).integers(0, 20, (8, 6))
    q_model = quantized(model, data, target)
    path = written(q_model, target, tmp_path)
    assert compare(model, q_model, data, file=path).file_snr > 30
    table = inner(q_model, "embedding").embeddings
    table.assign(table * 1.1)
    with pytest.raises(
        ValueError, match=r"the (float|quantized) weights of embedding are others, as before a training"
    ):
        compare(model, q_model, data, file=path)


@pytest.mark.parametrize("before", [0.0, 0.2])
@pytest.mark.parametrize(("layer", "weight"), [("last", "bias"), ("conv", "bias"), ("layer_norm", "gamma")])
def test_floats_of_litert_from_before_a_training(layer, weight, before, tmp_path):
    model, data = floats(), np.random.default_rng(0).random((8, 8, 8, 3), "float32")
    variable = getattr(inner(model, layer), weight)
    variable.assign(variable + before)
    q_model = quantized(model, data, "litert")
    path = written(q_model, "litert", tmp_path)
    assert compare(model, q_model, data, file=path).file_snr > 30
    variable = getattr(inner(q_model, layer), weight)
    variable.assign(variable * 1.1 + 0.05)
    with pytest.raises(ValueError, match=f"weights of {layer} are others, as before a training"):
        compare(model, q_model, data, file=path)


@pytest.mark.parametrize("target", [None, "onnxruntime", "openvino"])
def test_a_file_of_litert_beside_a_model_for_another_target(target, tmp_path):
    model, data = faulty_models.chain(), faulty_models.images()
    path = written(quantized(model, data, "litert"), "litert", tmp_path)
    with pytest.raises(ExportError, match="LiteRT needs other quantizers"):
        compare(model, quantized(model, data, target), data, file=path)
