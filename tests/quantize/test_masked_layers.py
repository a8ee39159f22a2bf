"""Masks of sequences in quantized models: they reach the same layers as in the float model, and in the file."""

import keras
import numpy as np
import pytest
from accuracy_networks import decibels
from keras import layers, ops
from onnx_models import run

from tensorflow_quantization import calibrate, describe, export_litert, export_onnx, quantize_model
from tensorflow_quantization.export import UnsupportedLayerError

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT needs TensorFlow")
TARGETS = [None, "tensorrt", "onnxruntime", pytest.param("litert", marks=ON_TENSORFLOW)]


class MaskedSum(layers.Layer):
    """Reads the mask of its first argument."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, first, second, first_mask=None):
        if first_mask is not None:
            first = first * ops.cast(first_mask, first.dtype)[..., None]
        return first + 0.2 * second


class Masked(layers.Layer):
    """A block that reads its mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="inner")
        self.supports_masking = True

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs, mask=None):
        x = self.dense(inputs)
        return x if mask is None else x * ops.cast(mask, x.dtype)[..., None]


class ScaledSum(layers.Layer):
    """Drops masks."""

    def call(self, inputs):
        return inputs[0] + 0.2 * inputs[1]


class MaskingSum(ScaledSum):
    """Hands masks on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True


MIXED = {
    "reads the mask of one argument": lambda masked, other: MaskedSum(name="mixed")(masked, other),
    "block": lambda masked, other: Masked(name="mixed")(masked),
    "drops masks": lambda masked, other: ScaledSum(name="mixed")([masked, other]),
    "hands masks on": lambda masked, other: MaskingSum(name="mixed")([masked, other]),
    "Add": lambda masked, other: layers.Add(name="mixed")([masked, other]),
    "nested model": lambda masked, other: nested()(masked),
}


def nested():
    inputs = keras.Input((7, 4))
    return keras.Model(inputs, layers.Dense(4, name="inner")(inputs), name="mixed")


def network(mix):
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    masked = layers.Embedding(3, 4, mask_zero=True, name="masked")(tokens)
    other = layers.Dense(4, name="dense")(layers.Embedding(3, 4, name="other")(tokens))
    x = layers.GlobalAveragePooling1D(name="pool")(mix(masked, other))
    return keras.Model(tokens, layers.Dense(3, name="scores")(x))


def data():
    return np.random.default_rng(0).integers(0, 3, (16, 7)).astype("int32")


def outputs(model):
    return ops.convert_to_numpy(model(data()))


@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask")  # by Keras, of layers that drop it
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mix", MIXED)
def test_the_same_layers_are_masked(mix, target, tmp_path):
    model = network(MIXED[mix])
    quantized = calibrate(quantize_model(model, target=target), data(), verbose=0)
    assert decibels(outputs(model), outputs(quantized)) > 25
    if target == "litert":
        export_litert(quantized, tmp_path / "m.tflite", verify_with=data())
    elif mix == "reads the mask of one argument":
        with pytest.raises(UnsupportedLayerError, match="'first_mask'"):
            export_onnx(quantized, tmp_path / "m.onnx", verify_with=data())
    else:
        file = export_onnx(quantized, tmp_path / "m.onnx", verify_with=data())
        assert decibels(outputs(quantized), run(file, [data()])[0]) > 100
    quantized.compile("sgd", "mse")
    quantized.train_on_batch(data(), np.zeros((16, 3), "float32"))


@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask")
def test_layers_of_several_inputs_that_a_mask_reaches_stay_layers():
    quantized = quantize_model(network(MIXED["drops masks"]), target="tensorrt")
    assert isinstance(quantized.get_layer("mixed"), ScaledSum)


def test_a_block_that_reads_the_mask_of_one_argument_says_so():
    class Two(Masked):
        def build(self, first_shape, second_shape):
            self.dense.build(first_shape)

        def call(self, first, second, first_mask=None):
            return super().call(first, first_mask) + second

    quantized = quantize_model(network(lambda masked, other: Two(name="mixed")(masked, other)), target="tensorrt")
    assert "a mask may reach its argument 'first_mask'" in str(describe(quantized)["mixed"].reason)
