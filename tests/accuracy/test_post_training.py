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
    rescale,
    residual,
    small,
    smooth_images,
)

from tensorflow_quantization import calibrate, export_onnx, fine_tune, quantize_model
from tensorflow_quantization.accuracy import equalize, post_training_quantize
from tensorflow_quantization.wrappers.queries import weight_quantizers_in


@pytest.mark.parametrize(("build", "bits", "gain"), [(branches, 8, 1), (depthwise, 4, 3)])
def test_it_is_better_than_rounding_to_nearest_and_the_file_agrees(build, bits, gain, tmp_path):
    model, x = build(), images(seed=5)
    expected = outputs(model, x)
    plain = quantized(model, target="onnxruntime", weight_bits=bits)
    better = post_training_quantize(model, images(), target="onnxruntime", weight_bits=bits, verbose=0)
    assert decibels(expected, outputs(better, x)) > decibels(expected, outputs(plain, x)) + gain
    export_onnx(better, tmp_path / "model.onnx", verify_with=images(4))


def test_training_goes_on_from_what_was_chosen(tmp_path):
    model, x = depthwise(), images(seed=5)
    expected = outputs(model, x)
    learned = {"weight_bits": 4, "ranges": "learned", "weight_ranges": "learned"}
    plain = quantized(model, target="onnxruntime", **learned)
    better = post_training_quantize(model, images(), target="onnxruntime", **learned, verbose=0)
    assert all(q.learns for q in weight_quantizers_in(better.get_layer("quant_stem")))
    assert decibels(expected, outputs(better, x)) > decibels(expected, outputs(plain, x)) + 3
    before = better.get_weights()
    fine_tune(better, images(), teacher=model, epochs=2, learning_rate=1e-4, verbose=0)
    assert not all(map(np.array_equal, before, better.get_weights()))
    assert decibels(expected, outputs(better, x)) > decibels(expected, outputs(plain, x)) + 3
    export_onnx(better, tmp_path / "model.onnx", verify_with=images(4))


@pytest.mark.parametrize("argument", ["ranges", "weight_ranges"])
def test_unknown_ranges_are_an_error(argument):
    with pytest.raises(ValueError, match=f"^{argument} must be one of .*, got 'lerned'"):
        post_training_quantize(small(), images(), **{argument: "lerned"})


def test_numbers_of_fp8_are_chosen_too(tmp_path):
    model, x = depthwise(), images(seed=5)
    expected = outputs(model, x)
    arguments = {"target": "tensorrt", "dtype": "float8_e4m3fn"}
    plain = quantized(model, **arguments)
    better = post_training_quantize(model, images(), **arguments, verbose=0)
    assert decibels(expected, outputs(better, x)) > decibels(expected, outputs(plain, x)) + 1.5
    export_onnx(better, tmp_path / "model.onnx", verify_with=images(4))
    with pytest.raises(ValueError, match=r"trains the roundings of integers: leave it out with dtype='float8_e4m3fn'"):
        post_training_quantize(model, images(), **arguments, effort="best")


@pytest.mark.slow
def test_networks_that_differ_by_factors_of_channels_are_quantized_alike():
    model, x = depthwise(), images(seed=5)
    expected = outputs(model, x)
    ruined = rescale(equalize(model, images()))
    one, other = (post_training_quantize(m, images(), verbose=0) for m in (model, ruined))
    assert abs(decibels(expected, outputs(one, x)) - decibels(expected, outputs(other, x))) < 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends start with other weights")
@pytest.mark.parametrize("bits", [4, 8])
def test_equalized_channels_do_not_clip_new_data(bits):
    """Each channel of them is clipped where the calibration set ends, which is early with 128 samples of 8 numbers."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((8,))
    for _ in range(2):
        x = keras.layers.Dense(16, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    data, unseen = (
        np.random.default_rng(seed).normal(size=(n, 8)).astype("float32") for seed, n in ((0, 128), (9, 999))
    )
    expected = outputs(model, unseen)
    options = {"target": "onnxruntime", "weight_bits": bits}
    plain = calibrate(quantize_model(model, **options), data, verbose=0)
    better = post_training_quantize(model, data, **options, verbose=0)
    assert decibels(expected, outputs(better, unseen)) > decibels(expected, outputs(plain, unseen)) - 1


@pytest.mark.slow
def test_it_tells_what_each_stage_gained(capsys):
    post_training_quantize(depthwise(), images(40), weight_bits=4)
    heading, *lines = capsys.readouterr().out.splitlines()
    assert "calibration" in heading
    stages = [line.partition("dB  ")[2].partition(":")[0] for line in lines]
    assert stages == [
        "quantized, calibrated",
        "weights rounded, biases corrected",
        "the same with equalized channels",
    ]
    best = float(lines[0].split()[0])
    for line in lines[1:]:
        decibels = float(line.split()[0])
        assert decibels >= best or line.endswith("undone, it is no gain")
        best = max(best, decibels)


@pytest.mark.slow
def test_it_is_deterministic_and_leaves_the_model():
    model = small()
    before = model.get_weights()
    first, second = (post_training_quantize(model, images(40), verbose=0) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.slow
def test_data_in_batches_of_pairs_without_end():
    def pairs():
        while True:
            yield images(8), np.zeros(8)

    model = post_training_quantize(small(), pairs(), verbose=0)
    assert isinstance(model, keras.Model)


@pytest.mark.slow
def test_the_best_effort_trains_the_roundings(capsys):
    model, x = residual(), smooth_images(64, seed=5)
    fast, best = (post_training_quantize(model, smooth_images(), weight_bits=4, effort=e) for e in ("fast", "best"))
    printed = capsys.readouterr().out
    assert printed.count("roundings trained") == 1
    assert "block" in printed
    expected = outputs(model, x)
    assert decibels(expected, outputs(best, x)) > decibels(expected, outputs(fast, x)) + 0.5


def test_errors_come_before_any_work():
    with pytest.raises(ValueError, match=r"effort must be one of 'fast', 'best', got 'beste'\. Did you mean 'best'"):
        post_training_quantize(depthwise(), images(), effort="beste")
    with pytest.raises(ValueError, match="shape"):
        post_training_quantize(depthwise(), images()[0])
    with pytest.raises(ValueError, match="computes in 8 bits only"):
        post_training_quantize(depthwise(), images(), target="litert", weight_bits=4)
    with pytest.raises(ValueError, match="calibration data is empty"):
        post_training_quantize(depthwise(), iter([]))
    with pytest.raises(TypeError, match="Did you mean 'weight_bits'"):
        post_training_quantize(depthwise(), images(), weight_bit=4)


def test_a_float_output_that_is_infinite_is_named_before_any_work(monkeypatch):
    monkeypatch.setattr("tensorflow_quantization.accuracy.post_training.quantize_model", None)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, activation="relu", kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, keras.ops.log(x))
    with pytest.raises(ValueError, match="returns values that are NaN or infinite for this data, in output 'log'"):
        post_training_quantize(model, np.ones((8, 4), "float32"), target="onnxruntime", verbose=0)
