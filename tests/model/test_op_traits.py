import keras
import pytest
from keras import layers, ops

from tensorflow_quantization.model import op_traits
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.op_traits import NO_TRAITS, Trait, is_one_of, origin, traits


def calls_of(make, shape=(8, 8, 3)):
    inputs = keras.Input(shape)
    return LayerGraph.trace(keras.Model(inputs, make(inputs))).calls


class MyConv(layers.Conv2D):
    """A convolution by another name."""


class HalfConv(layers.Conv2D):
    def call(self, x):
        return super().call(x) / 2


class Flatten(layers.Layer):
    def call(self, x):
        return x


def test_every_name_in_the_table_is_a_class_of_keras():
    operations = {cls.__name__ for cls in _subclasses(keras.Operation) if cls.__module__.startswith("keras.")}
    assert set(op_traits._TRAITS) <= operations


def _subclasses(cls):
    return {cls}.union(*(_subclasses(base) for base in cls.__subclasses__()))


def test_subclass_has_the_traits_of_its_base_while_it_computes_the_same():
    (conv,) = calls_of(MyConv(4, 3))
    assert traits(conv) == Trait.CONVOLVES | Trait.MULTIPLIES_BY_WEIGHTS
    (half,) = calls_of(HalfConv(4, 3))
    assert traits(half) == NO_TRAITS
    assert is_one_of(half, ["Conv2D"])


def test_layer_of_the_user_with_a_name_of_keras_has_no_traits():
    (call,) = calls_of(Flatten())
    assert traits(call) == NO_TRAITS
    assert not is_one_of(call, ["Flatten"])


@pytest.mark.parametrize("reshape", [lambda x: ops.transpose(x, (0, 2, 1, 3)), layers.Permute((2, 1, 3))])
def test_layers_and_operations_alike_move_data(reshape):
    (call,) = calls_of(reshape)
    assert Trait.MOVES_DATA in traits(call)


def test_origin_holds_the_values_before_they_were_moved():
    calls = calls_of(lambda x: layers.Flatten()(layers.Dropout(0.1)(layers.Conv2D(4, 3, name="conv")(x))))
    assert origin(calls[-1].outputs[0]).producer.name == "conv"


def test_matrix_product_of_a_tensor_and_a_constant_multiplies_no_activations():
    assert [op_traits.multiplies_activations(c) for c in calls_of(lambda x: ops.matmul(x, x), (8, 8))] == [True]
    assert [op_traits.multiplies_activations(c) for c in calls_of(lambda x: ops.matmul(x, ops.ones((3, 4))))] == [False]
