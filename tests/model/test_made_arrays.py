import threading

import keras
import numpy as np
import pytest
from keras import Input, ops

from tensorflow_quantization import calibrate, describe, quantize_model
from tensorflow_quantization.model.made_arrays import MadeArrays


def make(size):
    ops.ones((2,))
    return ops.arange(size)


def test_arrays_are_noted_in_order():
    arrays, others = MadeArrays(), MadeArrays()
    for size, noted in ((3, arrays), (4, others)):
        with noted.noted(Input((2,))):
            make(size)
    assert [tuple(array.shape) for array in arrays.arrays] == [(2,), (3,)]
    assert arrays.differing(others) == {1}


def test_only_the_chosen_arrays_are_tensors():
    with MadeArrays(frozenset({1})).noted(Input((2,))):
        assert not isinstance(ops.ones((2,)), keras.KerasTensor)
        array = ops.arange(3)
    assert isinstance(array, keras.KerasTensor)
    assert array.shape == (3,)


def test_the_functions_of_keras_come_back():
    before = ops.arange
    with pytest.raises(ZeroDivisionError), MadeArrays().noted(Input((2,))):
        raise ZeroDivisionError
    assert ops.arange is before


def test_what_keras_makes_for_the_shape_of_a_layer_is_not_noted():
    class Positions(keras.layers.Layer):
        def call(self, x):
            return x + ops.arange(ops.shape(x)[1], dtype="float32")

    arrays, x = MadeArrays(), Input(batch_shape=(2, 3))
    with arrays.noted(x):
        Positions()(x)
    assert arrays.arrays == []


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        ("arange", (5,), {}),
        ("arange", (2, 9, 3), {"dtype": "float32"}),
        ("arange", (-4, 1), {}),
        ("arange", (5, 0, -1), {}),
        ("eye", (4,), {}),
        ("eye", (3, 5), {"k": 1, "dtype": "int32"}),
        ("full", ((2, 3), 7.0), {}),
        ("ones", ((3,), "bool"), {}),
        ("tri", (4, 3), {"k": -1}),
        ("zeros", ((2, 1),), {}),
    ],
)
def test_a_tensor_has_the_values_of_the_array(function, args, kwargs):
    x = Input(batch_shape=(1,))
    expected = getattr(ops, function)(*args, **kwargs)
    with MadeArrays(frozenset({0})).noted(x):
        tensor = getattr(ops, function)(*args, **kwargs)
    assert tensor.dtype == keras.backend.standardize_dtype(expected.dtype)
    actual = keras.Model(x, tensor)(np.zeros((1,), "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(actual), ops.convert_to_numpy(expected))


class Attention(keras.layers.Layer):
    """Scores of all steps, masked by what a function makes of their number."""

    def __init__(self, mask, **kwargs):
        super().__init__(**kwargs)
        self.mask, self.kept = mask, {}
        self.query, self.value = keras.layers.Dense(8), keras.layers.Dense(8)

    def seen(self, size):
        return self.mask(size)

    def build(self, shape):
        self.query.build(shape)
        self.value.build(shape)

    def call(self, x):
        mask = self.seen(ops.shape(x)[1])
        scores = ops.matmul(self.query(x), ops.transpose(x, (0, 2, 1)))
        return ops.matmul(ops.softmax(ops.where(mask, scores, -30.0)), self.value(x))


def causal(size):
    return ops.arange(size)[:, None] >= ops.arange(size)


class KeepingAttention(Attention):
    """Keeps the masks of all sizes, outside of compiled functions, which give no numbers."""

    def seen(self, size):
        if not isinstance(size, int):
            return self.mask(size)
        if size not in self.kept:
            self.kept[size] = self.mask(size)
        return self.kept[size]


def network(mask, cls=Attention):
    inputs = Input((None, 8))
    return keras.Model(inputs, keras.layers.Dense(3)(cls(mask, name="attention")(inputs)))


@pytest.mark.parametrize(
    ("mask", "opens"),
    [
        (causal, True),
        (lambda size: ops.abs(ops.arange(size)[:, None] - ops.arange(size)) < 3, True),
        (lambda size: ops.cast(causal(size), "int32") != 0, True),
        # Keras answers by identity.
        (lambda size: ops.arange(size)[:, None] == ops.arange(size), False),
    ],
)
def test_a_mask_is_right_for_any_number_of_steps(mask, opens):
    keras.utils.set_random_seed(0)
    model = network(mask)
    data = {size: np.random.default_rng(size).normal(size=(4, size, 8)).astype("float32") for size in (20, 2, 37, 300)}
    quantized = calibrate(quantize_model(model), data[20], verbose=0)
    assert any("attention/" in layer.name for layer in describe(quantized)) == opens
    for size, x in data.items():
        expected, got = (ops.convert_to_numpy(m(x)) for m in (model, quantized))
        # Calibrated on 20 steps; of a wrong mask of 2 steps the noise would be near 1.
        assert np.sum((got - expected) ** 2) < (0.1 if size == 2 else 0.01) * np.sum(expected**2)


def test_the_float_layer_keeps_no_tensor_of_the_graph():
    model = network(causal, KeepingAttention)
    layer, kept = model.get_layer("attention"), model.get_layer("attention").kept
    quantize_model(model)
    assert layer.kept is kept
    assert not any(isinstance(mask, keras.KerasTensor) for mask in kept.values())
    for size in (65, 98, 749):
        assert not isinstance(model(np.zeros((1, size, 8), "float32")), keras.KerasTensor)


def test_other_threads_get_arrays():
    found, arrays = [], MadeArrays(frozenset({0}))
    with arrays.noted(Input((2,))):
        thread = threading.Thread(target=lambda: found.append(ops.arange(3)))
        thread.start()
        thread.join()
    assert not isinstance(found[0], keras.KerasTensor)
    assert arrays.arrays == []
