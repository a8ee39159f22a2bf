import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization.comparison.spread import Spread
from tensorflow_quantization.model.graph import LayerGraph


def graph(**options):
    inputs = keras.Input((None, 2), **options)
    return LayerGraph.trace(keras.Model(inputs, layers.ReLU()(inputs)))


@pytest.mark.parametrize("count", [1, 3, 8, 9, 16, 17, 100, 1000])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_samples_are_in_even_distances(count, size):
    spread, data = Spread(graph(), 8), np.arange(count).reshape(-1, 1, 1) * np.ones((1, 1, 2))
    for start in range(0, count, size):
        spread.add([data[start : start + size]])
    (found,) = spread.samples()
    numbers = found[:, 0, 0]
    assert len(numbers) == min(count, 8)
    assert numbers[0] == 0 and numbers[-1] >= count * 3 // 4 - 1
    assert (np.diff(numbers) > 0).all() and np.diff(numbers, prepend=-1).max() <= max(1, 2 * count / 7)


def test_a_fixed_batch_is_filled():
    spread = Spread(graph(batch_size=5), 8)
    for start in range(0, 40, 5):
        spread.add([np.arange(start, start + 5).reshape(-1, 1, 1) * np.ones((1, 1, 2))])
    assert len(spread.samples()[0]) == 5


def test_samples_of_other_sizes_are_left_out():
    spread = Spread(graph(), 8)
    for size in (3, 4, 3):
        spread.add([np.ones((2, size, 2))])
    assert spread.samples()[0].shape == (4, 3, 2)
