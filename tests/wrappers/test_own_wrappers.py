"""Wrappers that users add, in the documented way."""

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import assert_same_arrays, randomize

from tensorflow_quantization import (
    BaseQuantizeWrapper,
    NonWeightedBaseQuantizeWrapper,
    WeightedBaseQuantizeWrapper,
    quantize_model,
)

pytestmark = pytest.mark.usefixtures("own_wrappers")


def define_wrappers():
    class Conv2DTransposeQuantizeWrapper(WeightedBaseQuantizeWrapper):
        def __init__(self, layer, **kwargs):
            super().__init__(layer, kernel_type="kernel", **kwargs)

        def build(self, input_shape):
            super().build(input_shape)

        def call(self, inputs, training=None):
            return super().call(inputs, training=training)

    class GlobalMaxPooling2DQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
        def __init__(self, layer, **kwargs):
            super().__init__(layer, **kwargs)

        def build(self, input_shape):
            super().build(input_shape)

        def call(self, inputs, training=None):
            return super().call(inputs, training=training)

    return Conv2DTransposeQuantizeWrapper, GlobalMaxPooling2DQuantizeWrapper


def upsampling():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2DTranspose(5, 3, strides=2, name="up")(inputs)
    x = layers.GlobalMaxPooling2D(name="max")(x)
    return randomize(keras.Model(inputs, layers.Dense(2, name="dense")(x)))


def test_layers_without_a_wrapper_are_left_alone_by_default():
    assert [layer.name for layer in quantize_model(upsampling()).layers[1:]] == ["up", "max", "quant_dense"]


def test_documented_wrappers_are_used_by_default_trained_saved_and_loaded(tmp_path):
    wrappers = define_wrappers()
    q_model = quantize_model(upsampling())
    assert [layer.name for layer in q_model.layers[1:]] == ["quant_up", "quant_max", "quant_dense"]
    assert tuple(type(layer) for layer in q_model.layers[1:3]) == wrappers
    up, pool = q_model.layers[1:3]
    assert up.weight_quantizers["kernel"].scheme.axis == (-2,)
    assert pool.weight_quantizers == {}

    x = np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype("float32")
    before = ops.convert_to_numpy(up.layer.kernel).copy()
    q_model.compile("sgd", "mse")
    q_model.fit(x, np.ones((8, 2), "float32"), verbose=0)
    assert up.input_quantizers[0].seen
    assert pool.input_quantizers[0].seen
    assert np.abs(ops.convert_to_numpy(up.layer.kernel) - before).max() > 0

    q_model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_arrays(loaded.predict(x, verbose=0), q_model.predict(x, verbose=0))
    assert tuple(type(layer) for layer in loaded.layers[1:3]) == wrappers


@pytest.mark.parametrize("when", ["before", "after"])
def test_wrapper_may_set_its_channel_axis(when):
    class UpSampling2DQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
        pass

    class DenseQuantizeWrapper(WeightedBaseQuantizeWrapper):
        def __init__(self, layer, kernel_type="kernel", **kwargs):
            if when == "before":
                self.channel_axis = 0
            super().__init__(layer, kernel_type=kernel_type, **kwargs)
            if when == "after":
                self.channel_axis = 0

    wrapper = DenseQuantizeWrapper(layers.Dense(3))
    wrapper.build((None, 4))
    assert wrapper.weight_quantizers["kernel"].scheme.axis == (0,)


def test_own_wrapper_replaces_the_library_one_of_the_same_name():
    class DenseQuantizeWrapper(WeightedBaseQuantizeWrapper):
        pass

    q_model = quantize_model(small_models.cnn())
    assert type(q_model.get_layer("quant_dense")) is DenseQuantizeWrapper


def test_wrapper_that_is_named_after_an_alias_is_used():
    class GlobalMaxPool2DQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
        pass

    quantized = quantize_model(upsampling())
    assert type(quantized.get_layer("quant_max")) is GlobalMaxPool2DQuantizeWrapper
    assert BaseQuantizeWrapper.CHILD_WRAPPERS["GlobalMaxPool2DQuantizeWrapper"] is GlobalMaxPool2DQuantizeWrapper


def test_positional_arguments_of_the_old_toolkit():
    class MyQuantizeWrapper(BaseQuantizeWrapper):
        pass

    wrapper = MyQuantizeWrapper(layers.ReLU(), True, False, [0])
    assert (wrapper.quantize_inputs, wrapper.quantize_weights) == (True, False)
    assert wrapper.quantize_specific_input_indices == [0]
