import keras
import pytest
from keras import layers

from tensorflow_quantization import quantize_model
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import keras_mask
from tensorflow_quantization.model.masking import MaskOf, computes_own_mask, mask_parameters, masked_calls

TOKENS = keras.Input((5,), dtype="int32", name="tokens")


class Gate(layers.Layer):
    """Reads the mask of its first argument."""

    def call(self, first, second, first_mask=None):
        return first * second


class Own(layers.Layer):
    """Makes a mask."""

    def call(self, inputs):
        return inputs

    def compute_mask(self, inputs, mask=None):
        return keras.ops.any(keras.ops.not_equal(inputs, 0), axis=-1)


def reached(outputs, inputs=TOKENS):
    return masked_calls(LayerGraph.trace(keras.Model(inputs, outputs)).flatten())


def embedded(mask_zero=True):
    return layers.Embedding(7, 4, mask_zero=mask_zero, name="embedding")(TOKENS)


def test_a_mask_goes_as_far_as_layers_hand_it_on():
    x = layers.Dense(4, name="opaque")(layers.Dropout(0.5, name="dropout")(embedded()))
    x = keras.layers.Flatten(name="flatten")(x)  # drops it
    assert reached(layers.Dense(3, name="scores")(x)) == {"dropout", "opaque", "flatten"}


def test_without_a_mask_no_call_is_reached():
    assert reached(layers.Dense(4)(embedded(mask_zero=False))) == set()


@pytest.mark.parametrize("make", [lambda: layers.Masking(), Own])
def test_layers_that_make_masks(make):
    inputs = keras.Input((5, 4))
    assert reached(layers.Dense(3, name="dense")(make()(inputs)), inputs) == {"dense"}


def test_wrappers_make_no_masks():
    quantized = quantize_model(keras.Model(TOKENS, layers.Dense(4)(embedded(mask_zero=False))))
    assert masked_calls(LayerGraph.trace(quantized).flatten()) == set()


def test_operations_drop_masks():
    assert reached(layers.Dense(3, name="dense")(keras.ops.relu(embedded()))) == {"relu"}


def call_of(outputs, name="gate"):
    (call,) = LayerGraph.trace(keras.Model(TOKENS, outputs)).find(name)
    return call


def test_keras_adds_the_masks_of_the_arguments_that_have_a_parameter_for_it():
    x = embedded()
    call = call_of(Gate(name="gate")(x, x))
    assert mask_parameters(call) == {"first_mask": call.args[0]}


def test_a_mask_that_is_given_is_not_added():
    x = embedded()
    call = call_of(Gate(name="gate")(x, x, first_mask=keras.ops.not_equal(TOKENS, 1)))
    assert mask_parameters(call) == {}
    assert set(mask_parameters(call, ignored=["first_mask"])) == {"first_mask"}


def test_the_mask_of_the_only_argument():
    call = call_of(layers.LSTM(2, name="gate")(embedded(mask_zero=False)))
    assert set(mask_parameters(call)) == {"mask"}


def test_a_class_with_a_mask_of_its_own_is_found():
    assert computes_own_mask(Own())
    assert not any(map(computes_own_mask, (layers.Dense(2), layers.Embedding(2, 2, mask_zero=True), Gate())))


def test_what_stands_for_a_layer_has_its_mask():
    x = keras.ops.convert_to_tensor([[[1.0, 0.0], [0.0, 0.0]]])
    y = MaskOf(Own())(keras.ops.copy(x), x)
    assert keras.ops.convert_to_numpy(keras_mask(y)).tolist() == [[True, False]]
