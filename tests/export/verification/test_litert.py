import sys

import keras
import numpy as np
import pytest
import small_models

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.export import ExportError, VerificationError

if keras.backend.backend() != "tensorflow":
    pytest.skip("export_litert needs the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert, which runs .tflite files, is not installed")

from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.export.verification.litert import verify_litert
from tensorflow_quantization.model.graph import LayerGraph


@pytest.fixture
def quantized(cnn):
    """A small model for LiteRT, calibrated."""
    return calibrate(quantize_model(cnn, target="litert"), small_models.data_for(cnn), verbose=0)


def test_disagreement_is_found_and_nothing_written(tmp_path, quantized, monkeypatch):
    x = small_models.data_for(quantized)
    graph = LayerGraph.trace(quantized)
    data = export_litert(quantized, tmp_path / "m.tflite").read_bytes()
    assert verify_litert(data, graph, x).distance < 1
    quantized.get_layer("quant_dense").layer.bias.assign(np.ones(5))
    with pytest.raises(VerificationError, match="output_0"):
        verify_litert(data, graph, x)
    # A converter that takes other weights than Keras has.
    from tensorflow_quantization.export.litert import constants

    monkeypatch.setattr(constants, "_float32", lambda array: np.float32(array) * np.float32(1.1))
    with pytest.raises(VerificationError, match=r"most at 'quant_relu'.*allowed"):
        export_litert(quantized, tmp_path / "other.tflite", verify_with=x)
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]


def test_input_that_does_not_fit(tmp_path, quantized):
    with pytest.raises(ExportError, match="verify_with"):
        export_litert(quantized, tmp_path / "m.tflite", verify_with=np.zeros((1, 8, 8)))
    assert not list(tmp_path.iterdir())


def test_batches(tmp_path, quantized):
    x = small_models.data_for(quantized)
    export_litert(quantized, tmp_path / "m.tflite", verify_with=((x[i : i + 2], None) for i in range(0, 8, 2)))
    data, graph = (tmp_path / "m.tflite").read_bytes(), LayerGraph.trace(quantized)
    one, several = verify_litert(data, graph, x), verify_litert(data, graph, [x[:2], x[2:]])
    assert len(one.tensors) == len(several.tensors)
    assert abs(one.distance - several.distance) < 1e-3


def test_a_model_whose_batch_is_one(tmp_path):
    inputs = keras.Input(batch_shape=(1, 8, 8, 3))
    model = small_models.randomize(keras.Model(inputs, keras.layers.Conv2D(4, 3, activation="relu")(inputs)))
    x, _ = small_models.images(4)
    quantized = calibrate(quantize_model(model, target="litert"), x, verbose=0)
    export_litert(quantized, tmp_path / "m.tflite", verify_with=x)


def _tanh(x):
    return keras.layers.Lambda(keras.ops.tanh)(x)


def _twice():
    inputs = keras.Input((8,))
    model = small_models.randomize(keras.Model(inputs, keras.layers.Dense(4)(_tanh(_tanh(inputs)))))
    return model, np.random.default_rng(0).uniform(0.2, 0.4, (2000, 8)).astype("float32")


def _before_a_maximum():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 1, use_bias=False, name="scaled")(inputs)
    x = keras.ops.max(_tanh(x), axis=(1, 2))
    model = small_models.randomize(keras.Model(inputs, keras.layers.Dense(4)(x)))
    model.get_layer("scaled").kernel.assign(0.4 * np.eye(3).reshape(1, 1, 3, 3))
    return model, np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize("build", [_twice, _before_a_maximum])
def test_layers_of_own_code_before_a_quantizer_round_to_a_scale_of_their_own(tmp_path, build):
    """Before the quantizer, LiteRT rounds each tanh to 1/128, many steps of the narrow output."""
    model, data = build()
    quantized = calibrate(quantize_model(model, target="litert"), data, verbose=0)
    export_litert(quantized, tmp_path / "m.tflite", verify_with=data)


def test_litert_that_is_not_installed_is_named_before_any_work(tmp_path, quantized, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(ImportError, match=r"tensorflow-quantization\[litert\]"):
        export_litert(quantized, tmp_path / "m.tflite", verify_with=small_models.data_for(quantized))
    assert not list(tmp_path.iterdir())


def test_data_of_nan_is_named(tmp_path, quantized):
    x = np.full((2, 8, 8, 3), np.nan, "float32")
    with pytest.raises(VerificationError, match="that are NaN or infinite: pass finite data"):
        export_litert(quantized, tmp_path / "m.tflite", verify_with=x)


def test_a_file_that_litert_cannot_run(tmp_path):
    """LiteRT divides integers by integers, and refuses a zero among them."""
    inputs = keras.Input((8, 8, 3))
    x = keras.ops.reciprocal(keras.ops.tanh(keras.layers.Conv2D(4, 3)(inputs)))
    model = quantize_model(keras.Model(inputs, keras.layers.Dense(2)(x)), target="litert")
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    with pytest.raises(VerificationError, match=r"LiteRT cannot run the file: .*No file was written"):
        export_litert(calibrate(model, images, verbose=0), tmp_path / "m.tflite", verify_with=images)
    assert not list(tmp_path.iterdir())
