import pytest
from keras import layers

from tensorflow_quantization.model.keras_classes import (
    class_names_in_spec,
    is_of_keras,
    is_of_package,
    keras_class_name,
    keras_class_names,
    resolve_alias,
    stands_for,
)
from tensorflow_quantization.model.keras_internals import is_of_backend
from tensorflow_quantization.wrappers.layers import DenseQuantizeWrapper


class Dense(layers.Layer):
    """Called like a layer of Keras, and something else."""


class Norm(layers.Layer):
    """Called like an operation of Keras, which no spec can name."""


class WideDense(layers.Dense):
    """A subclass of a layer of Keras."""


class DenseWrapper:
    """What a user might register under a name."""


def test_a_class_of_the_user_is_not_of_keras_whatever_its_name():
    assert is_of_keras(layers.Dense)
    assert not is_of_keras(Dense)
    assert not is_of_keras(WideDense)


def test_bases_of_the_backend_are_not_layers_of_keras():
    # On JAX each layer has one that is called JaxLayer, as a layer of Keras is.
    bases = [base for base in layers.Dense.__mro__ if is_of_backend(base)]
    assert bases
    assert not any(map(is_of_keras, bases))


def test_what_the_package_registers_stands_for_classes_of_keras_only():
    assert is_of_package(DenseQuantizeWrapper)
    assert stands_for(DenseQuantizeWrapper, layers.Dense)
    assert not stands_for(DenseQuantizeWrapper, Dense)


def test_what_the_user_registers_stands_for_any_class_of_the_name():
    assert not is_of_package(DenseWrapper)
    assert stands_for(DenseWrapper, layers.Dense)
    assert stands_for(DenseWrapper, Dense)


def test_rules_may_name_classes_of_keras_and_bases_of_the_users():
    assert keras_class_names(Dense)[0] == "Layer"
    assert keras_class_names(WideDense)[:2] == ["Dense", "Layer"]
    assert keras_class_name(layers.Dense) == "Dense"
    assert keras_class_name(Dense) is None
    assert keras_class_name(WideDense) is None


def test_a_spec_may_name_classes_of_the_user_unless_a_layer_of_keras_is_called_so():
    assert class_names_in_spec(WideDense)[:3] == ["WideDense", "Dense", "Layer"]
    assert class_names_in_spec(Norm)[:2] == ["Norm", "Layer"]
    assert class_names_in_spec(Dense)[0] == "Layer"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("MaxPool2D", "MaxPooling2D"),
        ("AvgPool2D", "AveragePooling2D"),
        ("GlobalMaxPool2D", "GlobalMaxPooling2D"),
        ("GlobalAvgPool2D", "GlobalAveragePooling2D"),
        ("Convolution2D", "Conv2D"),
        ("Convolution2DTranspose", "Conv2DTranspose"),
        ("SeparableConvolution2D", "SeparableConv2D"),
        ("Dense", "Dense"),
        ("MyLayer", "MyLayer"),
        ("__name__", "__name__"),
    ],
)
def test_aliases_of_keras_are_resolved(alias, name):
    assert resolve_alias(alias) == name
