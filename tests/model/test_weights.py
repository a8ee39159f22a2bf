"""Layers after `enable_lora`: the merged kernel is quantized, and its low-rank factors are trained."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, export_litert, export_onnx, quantize_model
from tensorflow_quantization.model.weights import merged, merged_array, substitutes, variable_of
from tensorflow_quantization.wrappers.layers import DenseQuantizeWrapper

NAMES = ("conv", "einsum", "dense")


def with_factors(layer, seed=0):
    """The layer after `enable_lora`, with factors that are not zero and an alpha that is not the rank."""
    layer.enable_lora(2, lora_alpha=6)
    for variable in layer.variables:
        if "lora" in variable.name:
            variable.assign(np.random.default_rng(seed).normal(0, 0.3, variable.shape))
    return layer


def network():
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((36, 4))(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d", name="einsum")(x)
    return keras.Model(inputs, layers.Dense(3, name="dense")(layers.GlobalAveragePooling1D()(x)))


def network_with_factors():
    model = network()
    for name in NAMES:
        with_factors(model.get_layer(name))
    return model


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(ops.convert_to_tensor(x))


def by_hand(layer):
    a, b = numpy(layer.lora_kernel_a), numpy(layer.lora_kernel_b)
    return numpy(variable_of(layer, "kernel")) + 6 / 2 * (a @ b)


def inner(quantized, name):
    return next(x for x in quantized._flatten_layers() if x.name == name)


def relative_error(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def test_a_weight_is_its_base_plus_the_scaled_product_of_its_factors():
    layer = layers.Dense(3)
    layer.build((None, 4))
    np.testing.assert_array_equal(merged_array(layer, "kernel"), numpy(layer.kernel))
    with_factors(layer)
    np.testing.assert_allclose(merged_array(layer, "kernel"), by_hand(layer), rtol=1e-6)
    np.testing.assert_allclose(numpy(merged(layer, "kernel")), by_hand(layer), rtol=1e-6)


def test_a_layer_computes_with_the_substituted_weight():
    layer = layers.Dense(3)
    layer.build((None, 4))
    with_factors(layer)
    weight, x = np.float32(np.arange(12).reshape(4, 3)), np.ones((2, 4), "float32")
    with keras.StatelessScope([(v, ops.convert_to_tensor(y)) for v, y in substitutes(layer, "kernel", weight)]):
        np.testing.assert_allclose(numpy(layer.call(ops.convert_to_tensor(x))), x @ weight)


def test_the_merged_kernel_is_quantized():
    layer = layers.Dense(3)
    layer.build((None, 4))
    wrapper = DenseQuantizeWrapper(with_factors(layer), quantize_inputs=False)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    kernel = by_hand(layer)
    scale = np.abs(kernel).max(axis=0) / 127
    np.testing.assert_allclose(numpy(wrapper(x)), x @ (np.rint(kernel / scale) * scale), rtol=1e-4, atol=1e-5)


def test_quantized_model_computes_like_the_float_model_and_so_does_the_file(images, tmp_path):
    model = network_with_factors()
    quantized = quantize_model(model, target="onnxruntime", weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, images, verbose=0)
    assert relative_error(quantized.predict(images, verbose=0), model.predict(images, verbose=0)) < 0.1
    export_onnx(quantized, tmp_path / "quantized.onnx", verify_with=images)
    export_onnx(model, tmp_path / "float.onnx", verify_with=images)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT needs the TensorFlow backend")
def test_litert_file_computes_like_keras(images, tmp_path):
    pytest.importorskip("ai_edge_litert")
    quantized = calibrate(quantize_model(network_with_factors(), target="litert"), images, verbose=0)
    export_litert(quantized, tmp_path / "m.tflite", verify_with=images)


@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_training_changes_the_factors_and_not_the_base(images, ranges):
    quantized = calibrate(quantize_model(network_with_factors(), ranges=ranges), images, verbose=0)
    layer = inner(quantized, "dense")
    before = [numpy(v).copy() for v in (variable_of(layer, "kernel"), layer.lora_kernel_a, layer.lora_kernel_b)]
    quantized.compile("sgd", "mse")
    quantized.fit(images, np.ones((8, 3)), verbose=0)
    after = [numpy(v) for v in (variable_of(layer, "kernel"), layer.lora_kernel_a, layer.lora_kernel_b)]
    assert [np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_factors_that_come_after_quantization(images, tmp_path):
    quantized = quantize_model(network(), target="onnxruntime", weight_bits=EXACT_WEIGHT_BITS)
    for name in NAMES:
        with_factors(inner(quantized, name))
    calibrate(quantized, images, verbose=0)
    quantized.compile("sgd", "mse")
    quantized.fit(images, np.ones((8, 3)), verbose=0)
    assert not any(v.name == "kernel" for v in quantized.trainable_variables)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=images)


def test_a_saved_model_computes_the_same(images, tmp_path):
    quantized = calibrate(quantize_model(network_with_factors()), images, verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    expected = quantized.predict(images, verbose=0)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_projections_of_attention(tmp_path):
    inputs = keras.Input((6, 8))
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    for layer in (attention.query_dense, attention.value_dense):
        with_factors(layer)
    x = np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32")
    quantized = quantize_model(model, target="onnxruntime", weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, x, verbose=0)
    assert relative_error(quantized.predict(x, verbose=0), model.predict(x, verbose=0)) < 0.1
    assert inner(quantized, "query").lora_enabled and not inner(quantized, "key").lora_enabled
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=x)


def test_embedding(tmp_path):
    inputs = keras.Input((6,), dtype="int32")
    embedding = layers.Embedding(10, 4, name="embedding")
    x = layers.GlobalAveragePooling1D()(embedding(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    with_factors(embedding)
    tokens = np.random.default_rng(0).integers(0, 10, size=(4, 6))
    quantized = quantize_model(model, target="onnxruntime", weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, tokens, verbose=0)
    assert relative_error(quantized.predict(tokens, verbose=0), model.predict(tokens, verbose=0)) < 0.1
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=tokens)
