import keras
import numpy as np
import pytest
from keras import Input, ops

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
