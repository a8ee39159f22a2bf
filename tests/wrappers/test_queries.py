import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import (
    WeightedBaseQuantizeWrapper,
)
from tensorflow_quantization.wrappers import activation_quantizers, find_wrapper, inner_layer, wrappers_in
from tensorflow_quantization.wrappers.layers import (
    DenseQuantizeWrapper,
)

pytestmark = pytest.mark.usefixtures("own_wrappers")


def test_wrapper_of_the_nearest_base_class_is_found():
    class MyDense(layers.Dense):
        pass

    assert find_wrapper(MyDense(2)) is DenseQuantizeWrapper

    class MyDenseQuantizeWrapper(WeightedBaseQuantizeWrapper):
        pass

    assert find_wrapper(MyDense(2)) is MyDenseQuantizeWrapper
    assert find_wrapper(layers.ReLU()) is None


def test_the_layer_in_a_wrapper_and_its_quantizers():
    layer = layers.Dense(2)
    wrapper = DenseQuantizeWrapper(layer)
    wrapper(np.ones((1, 3), "float32"))
    assert inner_layer(wrapper) is layer
    assert inner_layer(layer) is layer
    assert activation_quantizers(wrapper) == wrapper.input_quantizers
    assert activation_quantizers(wrapper.input_quantizers[0]) == wrapper.input_quantizers
    assert activation_quantizers(layer) == []


def test_wrappers_within_a_model_are_found():
    inputs = keras.Input((3,))
    wrapper = DenseQuantizeWrapper(layers.Dense(2))
    model = keras.Model(inputs, wrapper(inputs))
    assert wrappers_in(model) == [wrapper]
    assert wrappers_in(wrapper) == [wrapper]
    assert wrappers_in(keras.ops.relu) == []
