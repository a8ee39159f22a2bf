"""`auto` takes the range with the least error of the layers that read the tensor."""

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import assert_same_arrays, data_for, randomize, values

from tensorflow_quantization import (
    calibrate,
    load_calibration,
    merge_calibrations,
    post_training_quantize,
    quantize_model,
    save_calibration,
)
from tensorflow_quantization.calibration import ESTIMATORS
from tensorflow_quantization.calibration.auto import CANDIDATES, AllMethods
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme


def quantizers_of(model):
    return [layer for layer in sublayers(model) if isinstance(layer, ActivationQuantizer)]


def ranges_of(model):
    return [ops.convert_to_numpy(q.range).tolist() for q in quantizers_of(model)]


def limit_of(model, name):
    (quantizer,) = [q for q in quantizers_of(model) if q.name == name]
    return float(ops.max(ops.abs(quantizer.range)))


def heavy_tailed(shape, seed=0):
    """Student's t with 2 degrees of freedom, whose variance is infinite."""
    return np.random.default_rng(seed).standard_t(2, shape).astype("float32")


def with_outliers():
    """Four values of 100 in the last of four features."""
    x = np.random.default_rng(0).normal(size=(2000, 4)).astype("float32")
    x[::500, 3] = 100
    return x


def dense(**arguments):
    inputs = keras.Input((4,))
    return quantize_model(randomize(keras.Model(inputs, layers.Dense(3, name="dense")(inputs))), **arguments)


def rounded(x, range_, scheme):
    """Quantization, written down again."""
    low, high = np.minimum(range_[0], 0), np.maximum(range_[1], 0)
    if scheme.symmetric:
        scale = max(-range_[0], range_[1]) / scheme.qmax
        return np.clip(np.round(x / scale), scheme.qmin, scheme.qmax) * scale
    scale = (high - low) / (scheme.qmax - scheme.qmin)
    zero = np.round(scheme.qmin - low / scale)
    return (np.clip(np.round(x / scale) + zero, scheme.qmin, scheme.qmax) - zero) * scale


def dense_error(model, x, range_):
    """The squared error of the layer's output, with quantized weights."""
    wrapper = model.get_layer("quant_dense")
    kernel = wrapper.weight_quantizers["kernel"].dequantized(ops.convert_to_numpy(wrapper.layer.kernel))
    (quantizer,) = quantizers_of(model)
    return np.sum(((rounded(x, range_, quantizer.scheme) - x) @ kernel.astype(np.float64)) ** 2)


# The choice


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_the_output_of_the_layer_errs_least(target, bits):
    x = heavy_tailed((3000, 4))
    model = dense(target=target, activation_bits=bits)
    scheme = quantizers_of(model)[0].scheme
    errors = {}
    for make in CANDIDATES:
        estimator = make()
        estimator.update(x)
        range_ = np.float32(estimator.range(scheme))
        errors[tuple(range_.tolist())] = dense_error(model, x, range_)
    (chosen,) = ranges_of(calibrate(model, x, method="auto", batch_size=1500, verbose=0))
    assert len(errors) > 3
    assert errors[tuple(chosen)] <= 1.0001 * min(errors.values())


@pytest.mark.parametrize(("seed", "bits"), [(0, 8), (1, 4)])
def test_no_method_alone_is_better_on_heavy_tails(seed, bits):
    x = heavy_tailed((3000, 4), seed)
    found = {}
    for method in ("auto", *ESTIMATORS):
        model = calibrate(dense(activation_bits=bits), x, method=method, batch_size=3000, verbose=0)
        found[method] = dense_error(model, x, ranges_of(model)[0])
    assert found["auto"] <= 1.0001 * min(found.values())
    assert found["auto"] < max(found.values())


def test_what_the_layer_ignores_does_not_count():
    # The weights of the last feature are zero: clipping its outliers costs nothing.
    x = with_outliers()
    model = dense()
    kernel = np.ones((4, 3), "float32")
    kernel[3] = 0
    model.get_layer("quant_dense").layer.kernel.assign(kernel)
    chosen = [
        max(np.abs(ranges_of(calibrate(model, x, method=m, batch_size=2000, verbose=0))[0])) for m in ("auto", "mse")
    ]
    assert chosen[0] < chosen[1]


def test_errors_of_several_readers_add_up():
    inputs = keras.Input((4,), name="x")
    heads = [layers.Dense(3, name=f"head{i}")(inputs) for i in range(2)]
    model = randomize(keras.Model(inputs, heads))
    x = with_outliers()

    def limit(factor):
        for i, sees in enumerate((0.0, factor)):
            kernel = np.ones((4, 3), "float32")
            kernel[3] = sees
            model.get_layer(f"head{i}").kernel.assign(kernel)
        quantized = calibrate(quantize_model(model, target="onnxruntime"), x, method="auto", batch_size=2000, verbose=0)
        return limit_of(quantized, "quant_x")

    assert limit(0.0) < 10 < limit(1.0)


@pytest.mark.parametrize("target", ["onnxruntime", "litert"])
def test_the_reader_after_moved_data_counts(target):
    # Reshaping is no reader: the weights of the Dense decide, as without it.
    x = with_outliers()
    kernel = np.ones((4, 3), "float32")
    kernel[3] = 0

    def limit(*moving):
        model = keras.Sequential([keras.Input((4,), name="x"), *moving, layers.Dense(3, name="dense")])
        model.layers[-1].set_weights([kernel, np.zeros(3)])
        quantized = calibrate(quantize_model(model, target=target), x, method="auto", batch_size=2000, verbose=0)
        return limit_of(quantized, "quant_x")

    assert limit(layers.Reshape((2, 2)), layers.Flatten()) == limit()


def test_a_tensor_that_nothing_reads_has_the_range_of_mse():
    inputs = keras.Input((4,))
    model = randomize(keras.Model(inputs, layers.Dense(3)(inputs)))
    x = heavy_tailed((500, 4))
    by_method = [
        ranges_of(calibrate(quantize_model(model, target="litert"), x, method=m, batch_size=2000, verbose=0))[-1]
        for m in ("auto", "mse", "minmax")
    ]
    assert by_method[0] == by_method[1] != by_method[2]


def test_candidates_hold_every_method_and_no_range_twice():
    assert {type(make()) for make in CANDIDATES} == set(ESTIMATORS.values())
    estimator = AllMethods()
    estimator.update(np.array([-1.0, 1.0]))
    assert estimator.ranges(QuantizationScheme()) == [(-1.0, 1.0)]
    assert len(estimator.ranges(QuantizationScheme(fixed=(0.5, 0.0)))) == 1


# Models and data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((name, None) for name in small_models.BUILDERS),
        *((name, target) for name in ("residual", "siamese") for target in ("onnxruntime", "openvino", "litert")),
    ],
)
def test_models_of_any_structure(name, target):
    model = quantize_model(small_models.BUILDERS[name](), target=target)
    calibrate(model, data_for(small_models.BUILDERS[name]()), method="auto", verbose=0)
    assert all(q.seen and q.frozen and q.observer is None for q in quantizers_of(model))


def every_kind():
    """Wrappers with quantizers within: attention, separable convolution, gate, recurrence; a range of two tensors."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Activation("silu")(layers.SeparableConv2D(4, 3, padding="same")(inputs))
    x = layers.Reshape((16, 4))(layers.AveragePooling2D(2)(x))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 2)(x, x)])
    x = layers.TimeDistributed(layers.Dense(4))(x)
    return randomize(keras.Model(inputs, layers.Dense(2)(layers.Bidirectional(layers.LSTM(3))(x))))


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "onnxruntime", "litert"])
def test_every_kind_of_wrapper_is_closer_to_float_than_with_entropy(target):
    model, x = every_kind(), heavy_tailed((32, 8, 8, 3))
    expected = model.predict(x, verbose=0)

    def error(method):
        quantized = calibrate(quantize_model(model, target=target), x, method=method, verbose=0)
        return np.mean((quantized.predict(x, verbose=0) - expected) ** 2)

    assert error("auto") < error("entropy")


def test_the_result_is_the_same_each_time():
    x = heavy_tailed((64, 8, 8, 3))
    first, second = (calibrate(quantize_model(small_models.residual()), x, method="auto", verbose=0) for _ in range(2))
    assert ranges_of(first) == ranges_of(second)


def test_judging_moves_no_states():
    def states(method):
        inputs = keras.Input(batch_shape=(2, 5, 4))
        rnn = layers.LSTM(3, stateful=True, name="rnn")
        model = randomize(keras.Model(inputs, [layers.Dense(3)(inputs), rnn(inputs)]))
        model = quantize_model(model, target="onnxruntime")
        calibrate(model, heavy_tailed((4, 5, 4)), method=method, verbose=0)
        return model.get_layer("quant_rnn").layer.states

    assert_same_arrays(states("auto"), states("minmax"))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    inputs = keras.Input((4,))
    model = randomize(keras.Model(inputs, layers.Dense(3, dtype=policy)(layers.Dense(8, dtype=policy)(inputs))))
    calibrate(quantize_model(model), heavy_tailed((64, 4)), method="auto", verbose=0)


def test_masks_reach_the_layers_that_are_judged():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    model = randomize(
        keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Dense(3)(layers.LSTM(3, return_sequences=True)(x))))
    )
    tokens = np.random.default_rng(0).integers(0, 3, (32, 6))
    calibrate(quantize_model(model, target="onnxruntime"), tokens, method="auto", verbose=0)


def test_steps_and_batches_do_not_change_what_is_read():
    x = heavy_tailed((60, 4))
    all_at_once, in_parts = (
        ranges_of(calibrate(dense(), x[:n], method="auto", steps=2, batch_size=size, verbose=0))
        for n, size in ((40, 20), (60, 20))
    )
    assert all_at_once == in_parts


def test_data_that_can_be_read_twice():
    x = heavy_tailed((60, 4))
    expected = ranges_of(calibrate(dense(), x, method="auto", batch_size=20, verbose=0))
    batches = [x[:20], x[20:40], x[40:]]
    assert ranges_of(calibrate(dense(), batches, method="auto", verbose=0)) == expected


def test_a_generator_is_refused_before_any_work():
    x = heavy_tailed((8, 4))
    drawn = []

    def batches():
        drawn.append(1)
        yield x

    model = dense()
    before = values(model)
    with pytest.raises(TypeError, match=r"method='auto' reads data twice, and a generator can be read once\. Pass"):
        calibrate(model, batches(), method="auto", verbose=0)
    assert not drawn
    assert_same_arrays(values(model), before)


def test_data_that_runs_dry_is_an_error_and_ranges_stay():
    class Once:
        def __init__(self, batches):
            self.batches = iter(batches)

        def __iter__(self):
            return self.batches

    model = dense()
    before = values(model)
    with pytest.raises(ValueError, match="data had 1 batches at first, and 0 when it was read again"):
        calibrate(model, Once([heavy_tailed((8, 4))]), method="auto", verbose=0)
    assert_same_arrays(values(model), before)
    assert not any(q.frozen or q.observer for q in quantizers_of(model))


def test_a_predict_step_of_the_user_is_refused():
    class Own(keras.Model):
        def predict_step(self, *args):
            raise AssertionError

    model = dense()
    model.__class__ = Own
    with pytest.raises(ValueError, match="Own has a predict_step of its own"):
        calibrate(model, heavy_tailed((8, 4)), method="auto", verbose=0)


def test_post_training_quantize_takes_it():
    x = small_models.images()[0]
    quantized = post_training_quantize(small_models.cnn(), x, target="onnxruntime", method="auto", verbose=0)
    assert all(q.seen for q in quantizers_of(quantized))


# Files


def test_a_file_has_the_ranges_and_cannot_be_merged(tmp_path):
    x = heavy_tailed((64, 4))
    model = calibrate(dense(), x, method="auto", verbose=0)
    save_calibration(model, tmp_path / "auto.json")
    assert ranges_of(load_calibration(dense(), tmp_path / "auto.json")) == ranges_of(model)
    with pytest.raises(ValueError, match=r"has no statistics.*'entropy'\. The ranges of 'auto' cannot be merged"):
        merge_calibrations([tmp_path / "auto.json"] * 2, tmp_path / "merged.json")
    assert not (tmp_path / "merged.json").exists()
