"""Names decide only for Keras' own classes: a layer of the user's that is called like one of Keras is another layer."""

import sys

import keras
import numpy as np
import pytest
from keras import layers
from tensorflow_quantization.custom_qdq_cases import ResNetV2QDQCase

from tensorflow_quantization import (
    BaseQuantizeWrapper,
    QuantizationSpec,
    WeightedBaseQuantizeWrapper,
    calibrate,
    describe,
    export_onnx,
    quantize_model,
)
from tensorflow_quantization.targets import TARGETS
from tensorflow_quantization.wrappers import find_wrapper

pytestmark = pytest.mark.usefixtures("own_wrappers")


class _Own(layers.Layer):
    """A gain per channel of its input, or of the sum of its two inputs."""

    def build(self, input_shape):
        shape = input_shape[0] if isinstance(input_shape, list) else input_shape
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, x):
        x, y = x if isinstance(x, list) else (x, 0.5)
        return (x + y) * self.gain


def own(name):
    """A class of the user's of that name."""
    return type(name, (_Own,), {"__module__": __name__})


#: Names that rules of the package speak of, with a number of inputs.
NAMES = {
    **dict.fromkeys(["Dense", "Conv2D", "BatchNormalization", "MaxPooling2D", "AveragePooling2D"], 1),
    **dict.fromkeys(["ReLU", "Softmax", "Dropout", "Split", "Reshape", "MultiHeadAttention"], 1),
    **dict.fromkeys(["Add", "Multiply", "Concatenate", "Dot", "Attention"], 2),
}


def network(*own_layers):
    """The layers, each given with its number of inputs, between convolutions."""
    x = image = keras.Input((8, 8, 4), name="image")
    for layer, inputs in own_layers:
        x = layers.Conv2D(4, 3, padding="same", name=f"conv_{layer.name}")(x)
        x = layer(x if inputs == 1 else [x, layers.Conv2D(4, 1, name=f"second_{layer.name}")(x)])
    x = layers.GlobalAveragePooling2D(name="gap")(layers.Conv2D(4, 3, name="last")(x))
    return keras.Model(image, layers.Dense(3, name="classifier")(x), name="network")


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, *TARGETS])
def test_a_name_of_keras_means_no_more_than_any_name(target):
    def description(prefix):
        model = network(*((own(prefix + name)(name=name.lower()), inputs) for name, inputs in NAMES.items()))
        quantized = quantize_model(model, target=target, custom_qdq_cases=[ResNetV2QDQCase()])
        return [word for word in str(describe(quantized)).split() if set(word) != {"-"}]  # but for lines of the table

    assert description("") == [word.replace("Own", "") for word in description("Own")]


@pytest.mark.parametrize("name", ["Dense", "Add", "MaxPooling2D"])
def test_the_file_computes_what_the_layer_computes(name, tmp_path):
    layer = own(name)(name="own")
    model = network((layer, NAMES[name]))
    layer.gain.assign([0.5, 2.0, -1.0, 3.0])
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 4)).astype("float32")
    quantized = calibrate(quantize_model(model, target="onnxruntime"), images, verbose=0)
    export_onnx(quantized, tmp_path / "model.onnx", verify_with=images)


def test_an_entry_for_a_class_of_keras_is_not_for_the_users():
    spec = QuantizationSpec()
    spec.add("Dense", is_keras_class=True)
    with pytest.warns(
        UserWarning, match=r"'Dense' means keras\.layers\.Dense: name a custom Dense by its layer name, own"
    ):
        model = keras.Sequential([keras.Input((4,)), own("Dense")(name="own")])
        quantized = quantize_model(model, "partial", quantization_spec=spec)
    assert type(quantized.get_layer("own")).__name__ == "Dense"
    assert not [layer.name for layer in quantized.layers if layer.name.startswith("quant_")]


def test_an_entry_by_layer_name_is_for_any_class():
    spec = QuantizationSpec()
    spec.add("own")
    quantized = quantize_model(network((own("Dense")(name="own"), 1)), "partial", quantization_spec=spec)
    assert [layer.name for layer in quantized.layers if layer.name.startswith("quant_")] == ["quant_own"]


@pytest.mark.parametrize("name", ["MyLayer", "Norm"])  # Norm is an operation of Keras, but no layer
def test_a_class_of_the_users_may_be_named_in_a_spec(name):
    spec = QuantizationSpec()
    spec.add(name, is_keras_class=True)
    quantized = quantize_model(network((own(name)(name="own"), 1)), "partial", quantization_spec=spec)
    assert [layer.name for layer in quantized.layers if layer.name.startswith("quant_")] == ["quant_own"]


def test_a_wrapper_of_the_users_is_for_their_class_whatever_its_name():
    class DenseQuantizeWrapper(WeightedBaseQuantizeWrapper):
        def __init__(self, layer, **kwargs):
            super().__init__(layer, kernel_type="gain", **kwargs)

        @classmethod
        def suits(cls, layer):
            return isinstance(layer, _Own)

    layer = own("Dense")(name="own")
    assert find_wrapper(layer) is DenseQuantizeWrapper
    quantized = quantize_model(keras.Sequential([keras.Input((4,)), layer]))
    assert list(quantized.get_layer("quant_own").weight_quantizers) == ["gain"]


def test_a_subclass_of_a_layer_of_keras_has_its_wrapper():
    class Dense(layers.Dense):
        pass

    assert find_wrapper(Dense(2)) is BaseQuantizeWrapper.CHILD_WRAPPERS["DenseQuantizeWrapper"]


def test_a_block_that_is_called_like_a_layer_of_keras_is_quantized_inside():
    class Conv2D(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv = layers.Conv2D(4, 3, name="conv")

        def call(self, x):
            return keras.ops.relu(self.conv(x))

    quantized = quantize_model(keras.Sequential([keras.Input((8, 8, 3)), Conv2D(name="block")]))
    assert quantized.get_layer("block").get_layer("quant_conv").weight_quantizers.keys() == {"kernel"}


@pytest.mark.parametrize("by", ["layer_class", "module"])
def test_a_wrapper_for_an_own_dense_leaves_the_dense_of_keras_alone(by, monkeypatch):
    own_dense = own("Dense")

    class DenseQuantizeWrapper(WeightedBaseQuantizeWrapper):
        layer_class = own_dense if by == "layer_class" else None

        def __init__(self, layer, **kwargs):
            super().__init__(layer, kernel_type="gain", **kwargs)

    if by == "module":
        monkeypatch.setattr(sys.modules[__name__], "Dense", own_dense, raising=False)
    model = keras.Sequential([keras.Input((4,)), own_dense(name="own"), layers.Dense(3, name="dense")])
    quantized = quantize_model(model)
    assert list(quantized.get_layer("quant_own").weight_quantizers) == ["gain"]
    assert list(quantized.get_layer("quant_dense").weight_quantizers) == ["kernel"]


def test_a_wrong_kernel_type_is_refused_before_the_model_is_returned():
    class GainQuantizeWrapper(WeightedBaseQuantizeWrapper):
        def __init__(self, layer, **kwargs):
            super().__init__(layer, kernel_type="gains", **kwargs)

    model = keras.Sequential([keras.Input((4,)), own("Gain")(name="own")])
    with pytest.raises(ValueError, match=r"kernel_type 'gains', but Gain 'own' has no weight.*Did you mean 'gain'"):
        quantize_model(model)
