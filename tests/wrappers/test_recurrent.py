"""Recurrent layers with quantized weights: what they compute in Keras, how they train, and what is stored of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops, tree
from recurrent_layers import CONVOLUTIONAL, LAYERS

from tensorflow_quantization import QuantizationSpec, calibrate, describe, post_training_quantize, quantize_model
from tensorflow_quantization.wrappers import find_wrapper
from tensorflow_quantization.wrappers.quantized_once import quantized_once

every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")


def arrays(outputs):
    return [ops.convert_to_numpy(y) for y in tree.flatten(outputs)]


def rounded(layer, shape=X.shape):
    """A copy of a layer whose kernels have the values of their integers, one scale for each column."""
    copy = type(layer).from_config(layer.get_config())
    copy.build(shape)
    for mine, theirs in zip(copy.weights, layer.weights, strict=True):
        weight = ops.convert_to_numpy(theirs)
        if theirs.name in ("kernel", "recurrent_kernel"):
            step = np.abs(weight).max(axis=tuple(range(weight.ndim - 1))) / 127
            weight = np.round(weight / step) * step
        mine.assign(weight)
    return copy


def wrapped(layer, shape=X.shape):
    layer.build(shape)
    return find_wrapper(layer)(layer, quantize_inputs=False)


@every_layer
@pytest.mark.parametrize(
    "options",
    [{}, {"return_sequences": True, "return_state": True}, {"go_backwards": True}, {"unroll": True}],
    ids=str,
)
def test_the_layer_computes_with_rounded_kernels(make, options):
    if "go_backwards" in options and isinstance(make(), layers.Bidirectional):
        options = {"return_sequences": True}
    wrapper = wrapped(make(**options))
    for actual, expected in zip(arrays(wrapper(X)), arrays(rounded(wrapper.layer)(X)), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("rank", CONVOLUTIONAL)
@pytest.mark.parametrize("options", [{}, {"return_sequences": True, "strides": 2}], ids=str)
def test_convolutional_layers_compute_with_rounded_kernels(rank, options):
    images = np.random.default_rng(0).normal(size=(2, 3, *[6] * rank, 2)).astype("float32")
    wrapper = wrapped(CONVOLUTIONAL[rank](3, 3, **options), images.shape)
    expected = rounded(wrapper.layer, images.shape)(images)
    np.testing.assert_allclose(arrays(wrapper(images))[0], arrays(expected)[0], atol=1e-6)
    assert list(wrapper.weight_quantizers) == ["cell.kernel", "cell.recurrent_kernel"]


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave", None])
def test_both_directions_are_quantized_and_merged(mode):
    layer = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode=mode)
    wrapper = wrapped(layer)
    wrapper(X)  # builds it
    assert len(wrapper.weight_quantizers) == 4
    for actual, expected in zip(arrays(wrapper(X)), arrays(rounded(wrapper.layer)(X)), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_a_mask_skips_steps_and_is_passed_on():
    inputs = keras.Input((None, 3))
    x = layers.Masking()(inputs)
    x = layers.LSTM(4, return_sequences=True, name="one")(x)
    model = keras.Model(inputs, layers.GRU(3, name="two")(x))
    quantized = quantize_model(model, target="onnxruntime")
    short, long = X.copy(), X[:, :3]
    short[:, 3:] = 0
    np.testing.assert_allclose(*(arrays(quantized(x))[0] for x in (short, long)), atol=1e-6)


def test_an_initial_state():
    inputs, state = keras.Input((5, 3)), keras.Input((4,))
    model = keras.Model([inputs, state], layers.GRU(4, name="gru")(inputs, initial_state=state))
    spec = QuantizationSpec()
    spec.add("gru")
    quantized = quantize_model(model, target="onnxruntime", quantization_spec=spec)
    wrapper = quantized.get_layer("quant_gru")
    assert len(wrapper.input_quantizers) == 1
    calibrate(quantized, [X, np.ones((2, 4), "float32")], verbose=0)
    zero, one = (arrays(quantized([X, np.full((2, 4), v, "float32")]))[0] for v in (0, 1))
    assert np.abs(one - zero).max() > 0.01


@pytest.mark.parametrize("make", [LAYERS["LSTM"], LAYERS["Bidirectional"]])
def test_a_stateful_layer_keeps_its_state_until_it_is_reset(make):
    wrapper = wrapped(make(stateful=True))
    first, second = (arrays(wrapper(X))[0] for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    wrapper.reset_state()
    np.testing.assert_allclose(arrays(wrapper(X))[0], first, atol=1e-6)


def test_a_kernel_is_quantized_once_in_a_call():
    wrapper, calls = wrapped(layers.LSTM(4, unroll=True)), []
    wrapper(X)  # builds it
    for name, quantizer in wrapper.weight_quantizers.items():
        quantizer.observer = lambda weight, name=name: (calls.append(name), weight)[1]
    wrapper(X)
    assert sorted(calls) == ["cell.kernel", "cell.recurrent_kernel"]


@pytest.mark.slow
@every_layer
def test_training_changes_all_weights(make):
    dropout = {} if make is LAYERS["stack"] else {"dropout": 0.1, "recurrent_dropout": 0.1}
    model = keras.Sequential([keras.Input((5, 3)), make(**dropout), layers.Dense(2)])
    quantized = quantize_model(model, target="onnxruntime")
    quantized.compile("sgd", "mse")
    before = [ops.convert_to_numpy(v) for v in quantized.trainable_variables]
    quantized.fit(X, np.ones((2, 2), "float32"), verbose=0)
    names = [v.path for v in quantized.trainable_variables]
    after = [ops.convert_to_numpy(v) for v in quantized.trainable_variables]
    unchanged = [n for n, a, b in zip(names, before, after, strict=True) if np.array_equal(a, b)]
    assert not unchanged


@pytest.mark.slow
@pytest.mark.parametrize("weight_ranges", ["minmax", "learned"])
def test_a_saved_model_computes_the_same(tmp_path, weight_ranges):
    model = keras.Sequential([keras.Input((5, 3)), *(LAYERS[n](return_sequences=True) for n in ("stack", "LSTM"))])
    model.add(LAYERS["Bidirectional"]())
    quantized = quantize_model(model, target="onnxruntime", weight_ranges=weight_ranges)
    calibrate(quantized, X, verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(arrays(loaded(X))[0], arrays(quantized(X))[0])
    assert str(describe(loaded)) == str(describe(quantized))


def test_weights_quantized_once_for_many_batches_compute_the_same():
    model = keras.Sequential([keras.Input((5, 3)), LAYERS["Bidirectional"](), layers.Dense(2)])
    quantized = quantize_model(model, target="onnxruntime")
    calibrate(quantized, X, verbose=0)
    expected = arrays(quantized(X))[0]
    with quantized_once(quantized):
        assert quantized.layers[0].is_quantized
        np.testing.assert_allclose(arrays(quantized(X))[0], expected, atol=0.02)  # biases are not rounded within
    np.testing.assert_array_equal(arrays(quantized(X))[0], expected)


@keras.saving.register_keras_serializable("tests")
class OwnCell(layers.SimpleRNNCell):
    """A cell that may compute something else."""


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tensorrt", None])
@pytest.mark.parametrize(
    "layer",
    [lambda: layers.RNN(OwnCell(4)), lambda: layers.RNN([OwnCell(4), layers.LSTMCell(3)])],
    ids=["one", "stack"],
)
def test_cells_of_other_classes_stay_float(layer, target):
    model = keras.Sequential([keras.Input((5, 3)), layer(), layers.Dense(2)])
    quantized = quantize_model(model, target=target)
    assert not any("cell" in q.what for found in describe(quantized).layers for q in found.quantizers)


def test_spec_by_class_and_bits():
    spec = QuantizationSpec()
    spec.add("LSTM", is_keras_class=True, quantize_input=False, weight_bits=4)
    spec.add("plain", quantize_weight=False, quantize_input=False)
    inputs = keras.Input((5, 3))
    x = layers.LSTM(4, return_sequences=True, name="four")(inputs)
    model = keras.Model(inputs, layers.GRU(4, name="other")(layers.LSTM(4, return_sequences=True, name="plain")(x)))
    described = describe(quantize_model(model, "partial", spec, target="onnxruntime"))
    assert [str(q) for q in described["four"].quantizers] == [
        "cell.kernel int4 per channel (axis -1)",
        "cell.recurrent_kernel int4 per channel (axis -1)",
    ]
    assert not described["plain"].quantized and not described["other"].quantized


@pytest.mark.parametrize("target", ["tensorrt", None])
def test_other_targets_quantize_the_input_only(target):
    spec = QuantizationSpec()
    spec.add("lstm")
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="lstm")])
    with pytest.warns(UserWarning, match="the weights of a LSTM stay float"):
        quantized = quantize_model(model, quantization_spec=spec, target=target)
    assert [q.what for q in describe(quantized)["lstm"].quantizers] == ["input"]


def test_several_outputs_cannot_be_quantized():
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.LSTM(4, return_state=True, name="lstm")(inputs))
    spec = QuantizationSpec()
    spec.add("lstm", quantize_output=True)
    with pytest.raises(ValueError, match=r"'lstm' has 3 outputs.*quantize_output"):
        quantize_model(model, quantization_spec=spec, target="onnxruntime")


def test_post_training_quantization_of_convolutional_layers():
    images = np.random.default_rng(0).normal(size=(4, 3, 5, 5, 2)).astype("float32")
    model = keras.Sequential(
        [keras.Input(images.shape[1:]), layers.ConvLSTM2D(3, 3), layers.Flatten(), layers.Dense(2)]
    )
    quantized = post_training_quantize(model, images, target="onnxruntime", verbose=0)
    assert len(quantized.layers[0].weight_quantizers) == 2
    actual, expected = (arrays(m(images))[0] for m in (quantized, model))
    assert 0 < np.abs(actual - expected).max() < 0.05


def test_post_training_quantization_with_and_without_other_layers():
    for tail in ([], [layers.Dense(2)]):
        model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4), *tail])
        quantized = post_training_quantize(model, X, target="onnxruntime", verbose=0)
        np.testing.assert_allclose(arrays(quantized(X))[0], arrays(model(X))[0], atol=0.05)
