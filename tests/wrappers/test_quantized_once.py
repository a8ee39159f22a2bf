import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import assert_same_arrays, data_for, randomize, values

from tensorflow_quantization import quantize_model
from tensorflow_quantization.wrappers.quantized_once import quantized_once


@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_a_model_computes_the_same_and_gets_its_weights_back(name):
    model = quantize_model(small_models.BUILDERS[name]())
    x = data_for(small_models.BUILDERS[name]())
    before, expected = values(model), keras.tree.flatten(model(x))
    with quantized_once(model):
        found = keras.tree.flatten(model(x))
    for y, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(y), ops.convert_to_numpy(wanted), rtol=1e-4, atol=1e-4)
    assert_same_arrays(values(model), before)


def test_weights_come_back_after_an_error():
    inputs = keras.Input((8, 8, 3))
    model = quantize_model(randomize(keras.Model(inputs, layers.SeparableConv2D(4, 3)(inputs))), target="openvino")
    before = values(model)
    with pytest.raises(KeyboardInterrupt), quantized_once(model):
        assert any((a != b).any() for a, b in zip(before, values(model), strict=True))
        raise KeyboardInterrupt
    assert_same_arrays(values(model), before)
    assert not model.layers[-1].is_quantized
