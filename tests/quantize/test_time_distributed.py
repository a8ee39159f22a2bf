"""A TimeDistributed layer is its inner layer over folded time."""

import keras
import numpy as np
import pytest
from keras import layers
from small_models import assert_same_arrays, randomize

from tensorflow_quantization import QuantizationSpec, calibrate, describe, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.quantize.pipeline import plan_model

EVERY = (None, "tensorrt", "onnxruntime", "openvino", "litert")
STEPS = 3


def video(*distributed, steps=STEPS):
    """A model of TimeDistributed layers, given by name and inner layer."""
    x = inputs = keras.Input((steps, 8, 8, 3), name="video")
    for name, inner in distributed:
        x = layers.TimeDistributed(inner, name=name)(x)
    return randomize(keras.Model(inputs, x))


def network():
    return video(
        ("conv", layers.Conv2D(4, 3)),
        ("bn", layers.BatchNormalization()),
        ("relu", layers.ReLU()),
        ("flat", layers.Flatten()),
        ("dense", layers.Dense(5)),
    )


def frames(count=6):
    return np.random.default_rng(0).normal(size=(count, STEPS, 8, 8, 3)).astype("float32")


def predict(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def spec_of(name, **settings):
    spec = QuantizationSpec()
    spec.add(name, **settings)
    return spec


def relu(x):
    """Named like Keras' function, and another one."""
    return keras.ops.tanh(x)


def test_inner_layer_keeps_a_function_of_the_user():
    model = video(("conv", layers.Conv2D(4, 3, activation=relu)))
    quantized = calibrate(quantize_model(model), frames(), verbose=0)
    y = predict(model, frames())
    assert y.min() < -0.5  # Keras' relu has no such output
    np.testing.assert_allclose(predict(quantized, frames()), y, atol=0.05)


@pytest.mark.parametrize("target", EVERY)
def test_inner_layers_are_quantized_and_the_output_keeps_its_shape(target):
    model = network()
    quantized = calibrate(quantize_model(model, target=target), frames(), verbose=0)
    described = describe(quantized)
    assert (described["conv"].class_name, described["dense"].class_name) == ("Conv2D", "Dense")
    assert described["conv"].quantized
    assert described["dense"].quantized
    assert described["bn"].reason == "folded into conv"
    y = predict(model, frames())
    assert quantized.output_shape == model.output_shape
    np.testing.assert_allclose(predict(quantized, frames()), y, atol=0.05 * np.abs(y).max())


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_file_computes_the_products_in_integers(target, tmp_path):
    # 7 bits: exact on every processor
    quantized = calibrate(quantize_model(network(), target=target, weight_bits=7), frames(), verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=frames(2), verify_runtime=target)
    if target == "onnxruntime":
        assert runtime_report(path).integer_share == 1.0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="export_litert needs the TensorFlow backend")
def test_litert_file_is_all_integers(tmp_path, recwarn):
    pytest.importorskip("ai_edge_litert")
    from tensorflow_quantization.export.litert import export_litert

    quantized = calibrate(quantize_model(network(), target="litert"), frames(), verbose=0)
    export_litert(quantized, tmp_path / "m.tflite", verify_with=frames(2))
    assert not [w for w in recwarn if "compute in floats" in str(w.message)]


def test_quantized_model_trains_and_loads(tmp_path):
    quantized = calibrate(quantize_model(network(), target="onnxruntime"), frames(), verbose=0)
    quantized.compile("sgd", "mse")
    quantized.fit(frames(), np.zeros((6, STEPS, 5)), verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert_same_arrays(predict(loaded, frames()), predict(quantized, frames()))
    assert str(describe(loaded)) == str(describe(quantized))


def test_model_is_left_as_it_is():
    model = network()
    before = predict(model, frames())
    calibrate(quantize_model(model), frames(), verbose=0)
    assert_same_arrays(predict(model, frames()), before)
    assert [layer.name for layer in model.layers] == ["video", "conv", "bn", "relu", "flat", "dense"]


def test_distributed_model_is_quantized_inside():
    cnn = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.GlobalAveragePooling2D()], name="cnn"
    )
    model = randomize(
        keras.Sequential([keras.Input((STEPS, 8, 8, 3)), layers.TimeDistributed(cnn, name="each"), layers.LSTM(2)])
    )
    quantized = calibrate(quantize_model(model), frames(), verbose=0)
    assert describe(quantized)["cnn/conv"].quantized
    np.testing.assert_allclose(predict(quantized, frames()), predict(model, frames()), atol=0.02)


def test_entry_by_name_is_for_the_inner_layer():
    plan = plan_model(network(), quantization_spec=spec_of("conv", weight_bits=4))
    assert plan["conv"].weight_scheme.bits == 4


def test_dense_over_an_unknown_number_of_steps():
    inputs = keras.Input((None, 4))
    x = layers.TimeDistributed(layers.Dense(3), name="dense")(inputs)
    model = randomize(keras.Model(inputs, layers.TimeDistributed(layers.ReLU(), name="relu")(x)))
    x = np.random.default_rng(0).normal(size=(4, 6, 4)).astype("float32")
    quantized = calibrate(quantize_model(model), x, verbose=0)
    assert describe(quantized)["dense"].class_name == "Dense"
    np.testing.assert_allclose(predict(quantized, x), predict(model, x), atol=0.05)


def test_shared_layer_has_one_wrapper():
    shared = layers.TimeDistributed(layers.Conv2D(3, 3, padding="same"), name="shared")
    inputs = keras.Input((STEPS, 8, 8, 3))
    model = randomize(keras.Model(inputs, shared(shared(inputs))))
    quantized = calibrate(quantize_model(model), frames(), verbose=0)
    assert [layer.name for layer in describe(quantized) if layer.quantized] == ["quant_shared"]
    np.testing.assert_allclose(predict(quantized, frames()), predict(model, frames()), atol=0.2)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: (layers.TimeDistributed(layers.Conv2D(2, 3), name="each"), None), "the size of its steps is unknown"),
        (lambda: (layers.TimeDistributed(layers.Dense(3), name="each"), layers.Masking()), "a mask may reach it"),
        (
            lambda: (
                layers.TimeDistributed(layers.Dense(3, activity_regularizer="l2"), name="each"),
                layers.ReLU(),
            ),
            "activity regularizer",
        ),
    ],
)
def test_layer_that_cannot_be_folded_says_why(make, reason):
    each, before = make()
    inputs = keras.Input((None, 8, 8, 3) if before is None else (STEPS, 4))
    x = inputs if before is None else before(inputs)
    plan = plan_model(keras.Model(inputs, each(x)))
    assert not plan["each"].quantized
    assert plan["each"].reason.text.startswith("its inner layer stays in float: ")
    assert reason in plan["each"].reason.text


def test_layers_that_nothing_quantizes_stay_as_they_are():
    off = spec_of(["conv", "dense"], quantize_input=False, quantize_weight=False)
    plan = plan_model(network(), quantization_spec=off)
    assert {layer.class_name for layer in plan} == {"TimeDistributed"}
