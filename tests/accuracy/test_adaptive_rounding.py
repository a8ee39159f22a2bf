import random

import keras
import numpy as np
import pytest
from accuracy_networks import (
    branches,
    decibels,
    depthwise,
    images,
    outputs,
    quantized,
    residual,
    small,
    smooth_images,
)
from keras import layers

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.accuracy import adapt_rounding, adaptive_rounding, correct_biases, round_weights
from tensorflow_quantization.accuracy.soft_rounding import SoftRounding, rectified_sigmoid


@pytest.mark.slow
def test_outputs_are_nearer_than_after_rounding_layer_by_layer_and_the_file_agrees(tmp_path):
    model, data, x = residual(), smooth_images(), smooth_images(64, seed=5)
    expected = outputs(model, x)
    by_layer, adapted = (
        calibrate(quantize_model(model, target="onnxruntime", weight_bits=4), data, verbose=0) for _ in range(2)
    )
    correct_biases(model, round_weights(by_layer, data), data)
    adapt_rounding(model, adapted, data, steps=100)
    assert decibels(expected, outputs(adapted, x)) > decibels(expected, outputs(by_layer, x)) + 0.5
    export_onnx(adapted, tmp_path / "model.onnx", verify_with=x[:4])


@pytest.mark.slow
def test_a_block_that_does_not_come_nearer_keeps_its_rounding(monkeypatch):
    monkeypatch.setattr(adaptive_rounding, "reconstruct", lambda block, quantizers, roundings, *rest: spoil(roundings))
    model = branches()
    by_layer = correct_biases(model, round_weights(quantized(model), images()), images())
    adapted = adapt_rounding(model, quantized(model), images())
    expected = outputs(model, images())
    assert decibels(expected, outputs(adapted, images())) > decibels(expected, outputs(by_layer, images())) - 1


def spoil(roundings):
    for rounding in roundings:
        rounding.assign(-rounding.start)


def test_training_that_changes_nothing_leaves_a_block_as_near_as_it_is(monkeypatch):
    relative, noise = adaptive_rounding._relative, []
    monkeypatch.setattr(adaptive_rounding, "reconstruct", lambda block, quantizers, roundings, *rest: keep(roundings))
    monkeypatch.setattr(adaptive_rounding, "_relative", lambda *args: noise.append(relative(*args)) or noise[-1])
    model = depthwise()
    adapt_rounding(model, quantized(model, target="onnxruntime", weight_bits=3), images())
    trained, start = noise[::2], noise[1::2]
    assert trained
    np.testing.assert_allclose(trained, start, rtol=0.1)  # biases are corrected again, and rounded to steps


def keep(roundings):
    for rounding in roundings:
        rounding.assign(rounding.start)


def test_nearly_all_weights_are_decided_at_the_end(monkeypatch):
    assign, decided = SoftRounding.assign, []

    def watched(rounding, value):
        share = keras.ops.convert_to_numpy(rectified_sigmoid(keras.ops.convert_to_tensor(value))).ravel()
        decided.extend((share < 0.05) | (share > 0.95))
        assign(rounding, value)

    monkeypatch.setattr(SoftRounding, "assign", watched)
    model = depthwise()
    adapt_rounding(model, quantized(model, weight_bits=4), images(32), steps=100)
    assert np.mean(decided) > 0.9


@pytest.mark.slow
def test_it_is_deterministic():
    model, candidates = small(), [quantized(small(), weight_bits=4) for _ in range(2)]
    state = random.getstate()
    first, second = (adapt_rounding(model, candidate, images(32), steps=4) for candidate in candidates)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    assert random.getstate() == state


def test_weights_are_integers_between_the_neighbours_and_nothing_else_changes():
    model = small()
    adapted = adapt_rounding(model, quantized(model, weight_bits=4), images(32), steps=20)
    wrapper = adapted.get_layer("quant_pointwise_0")
    kernel = keras.ops.convert_to_numpy(wrapper.layer.kernel.value)
    np.testing.assert_allclose(wrapper.weight_quantizers["kernel"].dequantized(kernel), kernel, atol=1e-6)
    assert wrapper.weight_quantizers["kernel"].observer is None
    assert all(quantizer.observer is None for quantizer in wrapper.activation_quantizers)
    before, after = ({v.path.split("/", 1)[-1] for v in m.variables} for m in (quantize_model(model), adapted))
    assert before == after


@pytest.mark.slow
def test_a_layer_that_is_called_twice_and_two_outputs():
    inputs = keras.Input((16, 16, 3))
    stem = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    shared = layers.Conv2D(8, 3, padding="same", name="shared")
    x = shared(shared(stem))
    model = keras.Model(inputs, {"map": x, "scores": layers.Dense(4, name="scores")(layers.Flatten()(x))})
    plain = quantized(model, weight_bits=3)
    rounded = round_weights(quantized(model, weight_bits=3), images())
    adapted = adapt_rounding(model, quantized(model, weight_bits=3), images(), steps=40)
    np.testing.assert_array_equal(
        *(np.asarray(m.get_layer("quant_shared").layer.get_weights()[0]) for m in (plain, adapted))
    )
    for name, expected in model(images(seed=5)).items():
        pair = [keras.ops.convert_to_numpy(m(images(seed=5))[name]) for m in (rounded, adapted)]
        low, high = (decibels(keras.ops.convert_to_numpy(expected), got) for got in pair)
        assert high > low - 0.5


def test_one_sample_is_rounded_layer_by_layer():
    model, x = depthwise(), images(1)
    adapted = adapt_rounding(model, quantized(model), x, steps=2)
    assert decibels(outputs(model, x), outputs(adapted, x)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_numbers_of_classes_and_other_precisions(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(3)
        inputs = keras.Input((6,), dtype="int32")
        x = layers.Conv1D(8, 3, padding="same", activation="relu")(layers.Embedding(50, 8)(inputs))
        model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))
        ids = np.random.default_rng(0).integers(0, 50, (64, 6)).astype("int32")
        candidate = calibrate(quantize_model(model, weight_bits=4), ids, verbose=0)
        adapt_rounding(model, candidate, ids, steps=20)
        expected, got = (keras.ops.convert_to_numpy(keras.ops.cast(m(ids), "float32")) for m in (model, candidate))
        assert decibels(expected, got) > 15
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_outputs_without_noise_and_folded_axes_do_not_keep_a_block_from_training(monkeypatch):
    trained = []

    def watched(block, *arguments):
        trained.append(len(block.outputs))
        reconstruct(block, *arguments)

    reconstruct = adaptive_rounding.reconstruct
    monkeypatch.setattr(adaptive_rounding, "reconstruct", watched)
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    scores = layers.Dense(4, activation="softmax", name="classes")(layers.Flatten()(x))
    largest = keras.ops.argmax(scores, -1)
    model = keras.Model(inputs, [layers.Dense(4, name="plain")(layers.Flatten()(x)), scores, largest, scores > 0.5])
    candidate = quantized(model, weight_bits=3, target="onnxruntime")
    adapt_rounding(model, candidate, (images(16, seed=i) for i in range(3)), steps=5)
    assert trained == [1]  # one block, whose other outputs have no counterpart in the float model, or no gradient
    folded = keras.ops.reshape(layers.Dense(4, activation="relu")(inputs), (-1, 16, 4))
    for _ in range(5):
        folded = layers.Dense(4, activation="relu")(folded)
    model = keras.Model(inputs, layers.Dense(2)(keras.ops.reshape(folded, (-1, 16, 16, 4))))
    adapt_rounding(model, quantized(model), images(), steps=5)
    assert len(trained) == 1  # blocks that pass on positions folded into the batch axis keep their rounding


@pytest.mark.slow
def test_what_is_interrupted_leaves_the_model(monkeypatch):
    model = residual()
    candidate = quantized(model, weight_bits=4)
    before = candidate.get_weights()

    def interrupt(*args):
        interrupt.calls += 1
        if interrupt.calls > 1:
            raise KeyboardInterrupt
        return reconstruct(*args)

    interrupt.calls = 0
    reconstruct = adaptive_rounding.reconstruct
    monkeypatch.setattr(adaptive_rounding, "reconstruct", interrupt)
    with pytest.raises(KeyboardInterrupt):
        adapt_rounding(model, candidate, images(32), steps=5)
    assert interrupt.calls == 2
    assert all(np.array_equal(a, b) for a, b in zip(before, candidate.get_weights(), strict=True))


def test_errors():
    model = depthwise()
    candidate = quantized(model)
    with pytest.raises(ValueError, match="is not set yet"):
        adapt_rounding(model, quantize_model(model), images())
    with pytest.raises(ValueError, match="steps must be at least 1"):
        adapt_rounding(model, candidate, images(), steps=0)
    with pytest.raises(ValueError, match="was not made from"):
        adapt_rounding(branches(), candidate, images())
    with pytest.raises(ValueError, match="NaN or infinite"):
        adapt_rounding(model, candidate, np.full((4, 16, 16, 3), np.nan, "float32"))
