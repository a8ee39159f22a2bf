import keras
import numpy as np
import pytest
from keras import ops

from tensorflow_quantization.model.sizes import Formula, Positions, Size, Sized, find_formula

SHAPES = np.array([(2, 65, 98, 8), (5, 222, 127, 8), (3, 98, 749, 8), (7, 333, 65, 8), (4, 749, 222, 8)])
BATCH, HEIGHT, WIDTH, _ = SHAPES.T


@pytest.mark.parametrize(
    ("sizes", "formula"),
    [
        (WIDTH, Formula((2,))),
        (HEIGHT * WIDTH, Formula((1, 2))),
        (BATCH * HEIGHT * WIDTH, Formula((0, 1, 2))),
        (8 * WIDTH, Formula((2,), factor=8)),
        (HEIGHT - 1, Formula((1,), offset=-1)),
        (-WIDTH, Formula((2,), factor=-1)),
        (2 * HEIGHT + 3, Formula((1,), factor=2, offset=3)),
        (HEIGHT // 4, Formula((1,), divisor=4)),
        (-(-WIDTH // 16), Formula((2,), offset=15, divisor=16)),
        (HEIGHT % 7, Formula((1,), modulo=7)),
        (-HEIGHT % 7, Formula((1,), factor=-1, modulo=7)),
    ],
    ids=str,
)
def test_formulas(sizes, formula):
    assert find_formula(sizes, [SHAPES]) == (0, formula)


def test_size_of_the_first_tensor_that_has_it():
    assert find_formula(WIDTH, [SHAPES[:, :2], SHAPES, SHAPES]) == (1, Formula((2,)))


@pytest.mark.parametrize("sizes", [HEIGHT**2, HEIGHT + WIDTH, np.minimum(HEIGHT, 100), np.array([3, 1, 4, 1, 5])])
def test_what_no_formula_computes(sizes):
    assert find_formula(sizes, [SHAPES]) is None


def reloaded(operation):
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(operation))


def numpy(x):
    return ops.convert_to_numpy(x)


def test_operations_compute_the_same_after_saving():
    x = ops.ones((2, 5, 3))
    size = Size(Formula((1,), offset=1, divisor=2))
    assert int(size(x)) == int(reloaded(size)(x)) == 3
    assert numpy(reloaded(Size(Formula((0, 1)), "float32"))(x)).dtype == "float32"
    assert numpy(reloaded(Positions("int32"))(3)).tolist() == [0, 1, 2]


def test_sizes_in_attributes_and_in_slices():
    y = keras.KerasTensor((2, 6))
    reshape = Sized(ops.reshape(y, (4, 3))._keras_history.operation, [("newshape", 1)], (4, None))
    assert reloaded(reshape)([2], ops.ones((2, 4))).shape == (4, 2)
    get = Sized(y[:, 1:3]._keras_history.operation, [(1, 1, "stop")], (2, None))
    assert reloaded(get)([5], ops.ones((2, 6)), (slice(None), slice(1, 3))).shape == (2, 4)
    assert get([y[0, 0]], y, (slice(None), slice(1, 3))).shape == (2, None)
