"""Calibration runs inside the compiled model, and leaves the model as it was."""

import logging

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import assert_same_arrays, images, randomize, values

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.calibration import ESTIMATORS, MinMax
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer

BACKEND = keras.backend.backend()
COMPILED = ("train_function", "test_function", "predict_function")


def quantizers_of(model):
    return [layer for layer in sublayers(model) if isinstance(layer, ActivationQuantizer)]


class OnHost(MinMax):
    """Has an `update` of its own, so the model runs eagerly."""

    def update(self, x):
        super().update(x)


class Interrupting(MinMax):
    def merge(self, low, high):
        raise KeyboardInterrupt


@pytest.fixture
def compiled():
    """A quantized model that has predicted, evaluated and trained."""
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(3)(layers.SeparableConv2D(4, 3)(x))))
    model.compile("sgd", "mse")
    model = quantize_model(model, target="onnxruntime")
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    y = model.predict(x, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.fit(x, y, verbose=0)
    return model


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.skipif(BACKEND == "torch", reason="Keras does not compile on PyTorch")
def test_python_runs_once_for_all_batches(method):
    traces = []

    class Own(keras.layers.Layer):
        def call(self, x):
            traces.append(x.shape)
            return x

    inputs = keras.Input((8, 8, 3))
    model = quantize_model(keras.Model(inputs, layers.Conv2D(4, 3)(Own()(inputs))))
    x = np.zeros((40, 8, 8, 3), "float32")
    traces.clear()
    calibrate(model, x, batch_size=4, method=method, verbose=0)
    assert len(traces) < 6  # once to compile, and when the graph is traced for the check of the scale


@pytest.mark.parametrize("method", ESTIMATORS)
def test_compiled_and_eager_ranges_are_alike(method, cnn):
    model = quantize_model(cnn)
    found = []
    for eagerly in (False, True):
        model.run_eagerly = eagerly
        calibrate(model, images()[0], method=method, verbose=0)
        found.append([ops.convert_to_numpy(q.range) for q in quantizers_of(model)])
        assert model.run_eagerly is eagerly
    for compiled, eager in zip(*found, strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-5)


def test_an_estimator_with_an_update_of_its_own_gets_the_values(cnn):
    model = quantize_model(cnn)
    found = []
    for method in (OnHost, MinMax):
        calibrate(model, images()[0], method=method, verbose=0)
        found.append([ops.convert_to_numpy(q.range) for q in quantizers_of(model)])
    for host, backend in zip(*found, strict=True):
        np.testing.assert_allclose(host, backend, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", [MinMax, OnHost])
def test_a_model_is_as_before_but_for_its_ranges(compiled, method):
    own = {id(q.range) for q in quantizers_of(compiled)} | {id(q.batches) for q in quantizers_of(compiled)}
    others = [w for w in compiled.weights if id(w) not in own]
    before = [np.array(ops.convert_to_numpy(w)) for w in others]
    functions = [getattr(compiled, name) for name in COMPILED]
    calibrate(compiled, np.ones((4, 8, 8, 3), "float32"), method=method, verbose=0)
    assert_same_arrays(others, before)
    assert compiled.train_function is None  # it would move the ranges
    assert [compiled.test_function, compiled.predict_function] == functions[1:]
    assert "predict_step" not in vars(compiled)


@pytest.mark.slow
@pytest.mark.parametrize("method", [MinMax, Interrupting])
def test_a_model_is_as_before_if_it_fails(compiled, method):
    before = values(compiled)
    functions = [getattr(compiled, name) for name in COMPILED]
    x = np.full((4, 8, 8, 3), np.nan if method is MinMax else 1, "float32")
    with pytest.raises(ValueError if method is MinMax else KeyboardInterrupt):
        calibrate(compiled, x, method=method, verbose=0)
    assert_same_arrays(values(compiled), before)
    assert [getattr(compiled, name) for name in COMPILED] == functions
    assert "predict_step" not in vars(compiled)
    assert all(q.observer is None and not q.frozen for q in quantizers_of(compiled))


def test_the_first_quantizer_with_nan_is_named(compiled):
    x = np.zeros((8, 8, 8, 3), "float32")
    x[5, 0, 0, 0] = np.nan
    first = compiled.layers[1].name
    with pytest.raises(ValueError, match=f"'{first}.*' got values that are NaN"):
        calibrate(compiled, x, batch_size=2, verbose=0)


@pytest.mark.skipif(BACKEND == "jax", reason="predict_step has other arguments on JAX")
def test_a_predict_step_that_needs_values_runs_eagerly():
    class Own(keras.Model):
        def predict_step(self, data):
            factor = float(ops.max(data[0]))  # no value while TensorFlow traces
            return self(data[0] * factor, training=False)

    inputs = keras.Input((4,))
    model = quantize_model(randomize(Own(inputs, layers.Dense(3)(inputs))))
    if type(model).predict_step is keras.Model.predict_step:
        model.__class__ = Own
    x = np.float32([[1, 2, 3, 4]])
    calibrate(model, x, verbose=0)
    np.testing.assert_allclose(ops.convert_to_numpy(quantizers_of(model)[0].range), [4, 16])
    assert not model.run_eagerly


def test_a_layer_that_is_called_twice_observes_both():
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    shared = layers.Dense(3)
    model = quantize_model(keras.Model([first, second], layers.Add()([shared(first), shared(second)])))
    x = np.float32([[1, 2, 3, 4]])
    calibrate(model, [x, -2 * x], verbose=0)
    lows, highs = zip(*[ops.convert_to_numpy(q.range) for q in quantizers_of(model)], strict=True)
    assert (min(lows), max(highs)) == (-8, 4)


def test_many_calibrations_write_no_note_on_compiling():
    written = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.WARNING)  # tests mute it
    logger.addHandler(handler)
    try:
        for width in range(3, 10):
            inputs = keras.Input((width,))
            model = quantize_model(keras.Model(inputs, layers.Dense(2)(inputs)))
            calibrate(model, np.ones((4, width), "float32"), verbose=0)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert not [line for line in written if "retracing" in line]
