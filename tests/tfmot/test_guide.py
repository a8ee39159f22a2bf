"""The examples of TFMOT's guides "Quantization aware training" run with the changed import, on tiny models."""

import keras
import numpy as np
import pytest
from tfmot_configs import (
    CLASSES,
    ClipConfig,
    DenseConfig,
    DenseOfMine,
    FloatActivationConfig,
    FourBitConfig,
    samples,
    train,
    wrapped,
)

import tensorflow_quantization.tfmot as tfmot
from tensorflow_quantization import calibrate, describe, export_litert

quantize_annotate_layer = tfmot.quantization.keras.quantize_annotate_layer
quantize_annotate_model = tfmot.quantization.keras.quantize_annotate_model
quantize_apply = tfmot.quantization.keras.quantize_apply
quantize_model = tfmot.quantization.keras.quantize_model
quantize_scope = tfmot.quantization.keras.quantize_scope

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="export_litert needs TensorFlow")


def base_model():
    return keras.Sequential([keras.Input((20,)), keras.layers.Dense(20, name="dense"), keras.layers.Flatten()])


def data():
    return samples(16, 20, 20)


def quantized_layers(model):
    return [layer.name for layer in describe(model) if layer.quantized]


def test_whole_model():
    model = base_model()
    quantized = quantize_model(model)
    np.testing.assert_allclose(quantized.get_layer("quant_dense").get_weights()[0], model.layers[0].get_weights()[0])
    assert {"int8"} == {q.dtype for layer in describe(quantized) for q in layer.quantizers}


def test_some_layers_by_clone_model():
    model = base_model()

    def annotate_dense(layer):
        return quantize_annotate_layer(layer) if isinstance(layer, keras.layers.Dense) else layer

    annotated = keras.models.clone_model(model, clone_function=annotate_dense)
    assert "quant_dense" in quantized_layers(quantize_apply(annotated))


def test_functional_annotation():
    inputs = keras.Input((20,), name="x")
    x = quantize_annotate_layer(keras.layers.Dense(10, name="first"))(inputs)
    outputs = keras.layers.Dense(3, name="second")(x)
    assert quantized_layers(quantize_apply(keras.Model(inputs, outputs))) == ["quant_x", "quant_first"]


def test_sequential_annotation_with_an_input_shape():
    annotated = keras.Sequential(
        [quantize_annotate_layer(keras.layers.Dense(20, input_shape=(20,), name="dense")), keras.layers.Flatten()]
    )
    assert "quant_dense" in quantized_layers(quantize_apply(annotated))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_checkpoint_and_deserialize(tmp_path, suffix):
    x, y = data()
    quantized = train(quantize_model(base_model()), x, y)
    quantized.save(tmp_path / f"model{suffix}")
    with quantize_scope():
        loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), quantized.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_annotated_model_is_saved_and_loaded(tmp_path, suffix):
    annotated = keras.Sequential(
        [keras.Input((20,)), quantize_annotate_layer(keras.layers.Dense(20, name="dense"), DenseConfig())]
    )
    annotated.save(tmp_path / f"model{suffix}")
    with quantize_scope(CLASSES):
        loaded = keras.models.load_model(tmp_path / f"model{suffix}")
        quantized = quantize_apply(loaded)
    assert isinstance(quantized.get_layer("quant_dense").quantize_config, DenseConfig)


@on_tensorflow
def test_create_and_deploy(tmp_path):
    x, y = data()
    quantized = train(quantize_model(base_model()), x, y)
    assert export_litert(quantized, tmp_path / "model.tflite", verify_with=x).exists()


@pytest.mark.slow
def test_image_classifier_of_the_example(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            keras.layers.Reshape((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    x, y = np.random.rand(32, 8, 8).astype("float32"), np.random.randint(0, 10, 32)
    quantized = quantize_model(model)
    quantized.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    quantized.fit(x, y, epochs=1, validation_split=0.1, verbose=0)
    assert {"quant_conv", "quant_logits"} <= set(quantized_layers(quantized))
    if keras.backend.backend() == "tensorflow":
        export_litert(quantized, tmp_path / "model.tflite", verify_with=x)


def configured(config, layer_class=keras.layers.Dense):
    layer = quantize_annotate_layer(layer_class(20, input_shape=(20,), name="dense"), config)
    with quantize_scope(CLASSES):
        return quantize_apply(quantize_annotate_model(keras.Sequential([layer, keras.layers.Flatten()])))


def kernel_of(model):
    return next(q for layer in describe(model) for q in layer.quantizers if q.what == "kernel")


def test_custom_layer_with_a_config():
    quantized = configured(DenseConfig(), DenseOfMine)
    assert isinstance(wrapped(quantized)[0].layer, DenseOfMine)
    assert (kernel_of(quantized).bits, kernel_of(quantized).axis) == (8, None)


def test_modified_parameters():
    assert kernel_of(configured(FourBitConfig())).bits == 4


def test_modified_parts():
    quantized = configured(FloatActivationConfig())
    assert [q.what for q in describe(quantized)["dense"].quantizers] == ["kernel"]


def test_custom_algorithm():
    x, y = data()
    quantized = configured(ClipConfig())
    kernel = np.linspace(-1, 1, 400, dtype="float32").reshape(20, 20)
    wrapped(quantized)[0].layer.kernel.assign(kernel)
    calibrate(quantized, x, verbose=0)
    small = np.eye(20, dtype="float32")
    expected = np.clip(kernel, -0.125, 0.125)
    # One row of the kernel for each sample; the input 1.0 is rounded to a step of its range.
    np.testing.assert_allclose(quantized.predict(small, verbose=0), expected, atol=2e-3)
    train(quantized, x, y)


@pytest.mark.parametrize("config", [DenseConfig, FourBitConfig, FloatActivationConfig, ClipConfig])
def test_model_with_a_config_trains_and_loads(tmp_path, config):
    x, y = data()
    quantized = train(configured(config()), x, y)
    quantized.save(tmp_path / "model.keras")
    with quantize_scope(CLASSES):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), quantized.predict(x, verbose=0), atol=1e-6)
