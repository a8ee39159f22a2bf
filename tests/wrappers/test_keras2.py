"""Wrappers of the old pages, written for Keras 2: an error shows what to write."""

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import BaseQuantizeWrapper, WeightedBaseQuantizeWrapper, quantize_model

pytestmark = pytest.mark.usefixtures("own_wrappers")


def define_long_wrapper():
    """The shape of the old pages' wrapper: ranges as variables, a quantizer of the base class, a swapped kernel."""

    class Conv2DTransposeQuantizeWrapper(BaseQuantizeWrapper):
        def __init__(self, layer, kernel_type="kernel", **kwargs):
            self.kernel_type = kernel_type
            self.channel_axis = kwargs.get("axis", -1)
            super().__init__(layer, **kwargs)

        def build(self, input_shape):
            super().build(input_shape)
            self._weight_vars = []
            self.input_vars = {}
            kernel = getattr(self.layer, self.kernel_type)
            low = self.layer.add_weight(kernel.name + "_min", shape=kernel.shape[-1], trainable=False)
            high = self.layer.add_weight(kernel.name + "_max", shape=kernel.shape[-1], trainable=False)
            self._weight_vars.append((kernel, {"min_var": low, "max_var": high}))

        def call(self, inputs, training=None):
            kernel, ranges = self._weight_vars[0]
            kernel = self._last_value_quantizer(kernel, training, ranges, per_channel=True, channel_axis=-1)
            setattr(self.layer, self.kernel_type, kernel)
            return self.layer.call(inputs)

    return Conv2DTransposeQuantizeWrapper


def upsampling():
    inputs = keras.Input((4, 4, 3))
    return keras.Model(inputs, layers.Conv2DTranspose(5, 3, strides=2, name="up")(inputs))


def test_long_wrapper_is_refused_with_its_short_form():
    define_long_wrapper()
    message = "Conv2DTransposeQuantizeWrapper of layer 'up' uses '_weight_vars'"
    with pytest.raises(AttributeError, match=message) as error:
        quantize_model(upsampling())
    text = str(error.value)
    short = text[text.index("class Conv2DTransposeQuantizeWrapper(WeightedBaseQuantizeWrapper)") :]
    exec(short, {"__name__": "script", "WeightedBaseQuantizeWrapper": WeightedBaseQuantizeWrapper})
    quantized = quantize_model(upsampling())
    assert list(quantized.get_layer("quant_up").weight_quantizers) == ["kernel"]
    assert np.isfinite(keras.ops.convert_to_numpy(quantized(np.ones((1, 4, 4, 3), "float32")))).all()


def test_wrapper_without_a_kernel_is_shown_the_other_base_class():
    class FlattenQuantizeWrapper(BaseQuantizeWrapper):
        def call(self, inputs, training=None):
            return self.layer(self._last_value_quantizer(inputs, training, {}))

    model = quantize_model(keras.Sequential([keras.Input((2, 2)), layers.Flatten()]))
    error = RuntimeError if keras.backend.backend() == "torch" else AttributeError
    with pytest.raises(error, match=r"class FlattenQuantizeWrapper\(NonWeightedBaseQuantizeWrapper\):"):
        model(np.ones((1, 2, 2), "float32"))


def test_class_itself_has_them():
    assert BaseQuantizeWrapper._weight_vars.name == "_weight_vars"
