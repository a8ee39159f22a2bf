import keras
import pytest
import small_models
from keras import layers
from tensorflow_quantization.custom_qdq_cases import (
    BNQDQCase,
    EfficientNetQDQCase,
    InceptionQDQCase,
    MaxPoolQDQCase,
    MobileNetQDQCase,
    ResidualConnectionQDQCase,
    ResNetV1QDQCase,
    ResNetV2QDQCase,
    check_is_quantizable_by_layer_name,
)

import tensorflow_quantization
from tensorflow_quantization import CustomQDQInsertionCase, QuantizationSpec, custom_qdq_cases
from tensorflow_quantization.model.keras_internals import nodes_of, origin


def asked(case, model, qspec=None):
    """What a case asks of a model: layer name to indices, `None` for all inputs."""
    spec = case.case(model, QuantizationSpec() if qspec is None else qspec)
    assert all(entry.quantize_input and not entry.quantize_weight for entry in spec.layers)
    return {entry.name: entry.quantization_index for entry in spec.layers}


def test_documented_names_import():
    assert tensorflow_quantization.CustomQDQInsertionCase is CustomQDQInsertionCase
    for name in custom_qdq_cases.__all__:
        assert getattr(custom_qdq_cases, name)


@pytest.mark.parametrize(
    "case",
    [
        BNQDQCase,
        EfficientNetQDQCase,
        InceptionQDQCase,
        MaxPoolQDQCase,
        MobileNetQDQCase,
        ResidualConnectionQDQCase,
        ResNetV1QDQCase,
        ResNetV2QDQCase,
    ],
)
def test_info_says_what_a_case_is_for(case):
    assert len(case().info()) > 20


# Residual connections


def residual(*, first, second):
    """Two branches, each a list of layers on the same input, into one Add."""
    inputs = keras.Input((8, 8, 4), name="image")
    stem = layers.ReLU(name="stem")(inputs)
    branches = []
    for branch in (first, second):
        x = stem
        for layer in branch:
            x = layer(x)
        branches.append(x)
    return keras.Model(inputs, layers.Add(name="add")(branches))


def conv():
    return layers.Conv2D(4, 1)


CHAINS = {
    "conv": lambda: [conv()],
    "conv_bn": lambda: [conv(), layers.BatchNormalization()],
    "conv_bn_activation": lambda: [conv(), layers.BatchNormalization(), layers.ReLU()],
    "conv_bn_activation_dropout": lambda: [conv(), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.1)],
    "depthwise": lambda: [layers.DepthwiseConv2D(1), layers.BatchNormalization()],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("position", [0, 1])
def test_residual_add_leaves_the_conv_branch_alone(chain, position):
    branches = [[], []]
    branches[position] = CHAINS[chain]()
    model = residual(first=branches[0], second=branches[1])
    assert asked(ResidualConnectionQDQCase(), model) == {"add": [1 - position]}


@pytest.mark.parametrize("position", [0, 1])
def test_pooled_branch_is_quantized_like_an_identity(position):
    branches = [[conv(), layers.AveragePooling2D(1)], [conv(), layers.BatchNormalization()]]
    model = residual(first=branches[position], second=branches[1 - position])
    assert asked(ResidualConnectionQDQCase(), model) == {"add": [position]}


def test_add_of_two_conv_branches_leaves_exactly_one_out():
    model = residual(first=[conv(), layers.BatchNormalization()], second=[conv(), layers.BatchNormalization()])
    assert asked(ResidualConnectionQDQCase(), model) == {"add": [0]}


def test_add_of_no_conv_branch_is_quantized_whole():
    model = residual(first=[layers.MaxPooling2D(1)], second=[layers.Activation("tanh")])
    assert asked(ResidualConnectionQDQCase(), model) == {"add": None}


def test_conv_branch_that_somebody_else_reads_is_quantized():
    inputs = keras.Input((8, 8, 4))
    x = conv()(inputs)
    model = keras.Model(inputs, [layers.Add(name="add")([x, inputs]), layers.ReLU()(x)])
    assert asked(ResidualConnectionQDQCase(), model) == {"add": None}


def test_conv_branch_that_is_an_output_of_the_model_is_quantized():
    inputs = keras.Input((8, 8, 4))
    x = conv()(inputs)
    model = keras.Model(inputs, [layers.Add(name="add")([x, inputs]), x])
    assert asked(ResidualConnectionQDQCase(), model) == {"add": None}


def test_add_of_three_leaves_one_conv_branch_out():
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, layers.Add(name="add")([conv()(inputs), inputs, conv()(inputs)]))
    assert asked(ResidualConnectionQDQCase(), model) == {"add": [0, 1]}


def test_inputs_may_be_a_tuple():
    assert asked(ResidualConnectionQDQCase(), small_models.residual(as_tuple=True)) == {"add": [0]}


# Other rules


def test_batch_normalization_after_a_convolution_is_left_alone():
    inputs = keras.Input((8, 8, 4))
    x = layers.BatchNormalization(name="after_conv")(conv()(inputs))
    x = layers.ReLU()(x)
    x = layers.BatchNormalization(name="after_relu_of_conv")(x)
    x = layers.MaxPooling2D()(x)
    model = keras.Model(inputs, layers.BatchNormalization(name="after_pool")(x))
    assert "after_conv" not in asked(BNQDQCase(), model)
    assert "after_pool" in asked(BNQDQCase(), model)


def test_pre_activation_batch_normalization_is_quantized():
    inputs = keras.Input((8, 8, 4))
    x = layers.Add(name="add")([conv()(inputs), inputs])
    model = keras.Model(inputs, layers.BatchNormalization(name="preact")(x))
    assert asked(BNQDQCase(), model) == {"preact": None}


def test_max_pooling_is_quantized_and_other_pooling_not():
    inputs = keras.Input((8, 8, 4))
    x = layers.MaxPooling2D(name="max")(inputs)
    model = keras.Model(inputs, layers.AveragePooling2D(2, name="average")(x))
    for case in (MaxPoolQDQCase(), InceptionQDQCase()):
        assert asked(case, model) == {"max": None}


def test_both_inputs_of_squeeze_and_excite_are_quantized():
    inputs = keras.Input((8, 8, 4))
    gate = layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(inputs))
    model = keras.Model(inputs, layers.Multiply(name="excite")([inputs, gate]))
    assert asked(EfficientNetQDQCase(), model) == {"excite": [0, 1]}


# What the user says


@pytest.mark.parametrize("name", ["add", "a*"])
def test_layer_that_the_user_names_is_left_to_her(name):
    qspec = QuantizationSpec()
    qspec.add(name, quantize_input=False)
    assert not check_is_quantizable_by_layer_name(qspec, "add")
    assert check_is_quantizable_by_layer_name(qspec, "bn")
    assert asked(ResidualConnectionQDQCase(), small_models.residual(), qspec) == {}
    assert len(qspec.layers) == 1


def test_class_entry_does_not_name_a_layer():
    qspec = QuantizationSpec()
    qspec.add("Add", is_keras_class=True)
    assert check_is_quantizable_by_layer_name(qspec, "add")
    assert check_is_quantizable_by_layer_name(None, "add")


def test_rules_look_into_nested_models():
    inputs = keras.Input((8, 8, 3))
    x = small_models.residual()(inputs)
    model = keras.Model(inputs, x)
    assert asked(ResidualConnectionQDQCase(), model) == {"add": [0]}


def test_names_that_nested_models_repeat_are_told_apart_by_their_path():
    inputs = keras.Input((8, 8, 3))
    one, other = small_models.residual(), small_models.residual()
    other.name = "other"
    model = keras.Model(inputs, layers.Concatenate()([one(inputs), other(inputs)]))
    assert asked(ResidualConnectionQDQCase(), model) == {"residual/add": [0], "other/add": [0]}


# Networks of keras.applications


def application(name, size=32, **kwargs):
    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10, **kwargs)


def names_of(model, layer_class):
    return [layer.name for layer in model.layers if type(layer) is layer_class]


@pytest.mark.slow
def test_resnet50_quantizes_the_identity_and_one_of_two_convolutions():
    model = application("ResNet50")
    found = asked(ResNetV1QDQCase(), model)
    assert len(found) == 16
    assert list(found) == names_of(model, layers.Add)
    # Identity blocks add the block's input and a Conv-BN; downsampling ones two Conv-BNs.
    assert all(index == [0] for index in found.values())
    identity = nodes_of(model.get_layer("conv2_block2_add"))[0].input_tensors[0]
    assert origin(identity).operation.name == "conv2_block1_out"


@pytest.mark.slow
def test_resnet50v2_quantizes_adds_pre_activation_norms_and_max_pools():
    model = application("ResNet50V2")
    found = asked(ResNetV2QDQCase(), model)
    adds = names_of(model, layers.Add)
    assert adds[0] == "conv2_block1_out"
    assert len(adds) == 16
    assert {name: found[name] for name in adds} == {name: [0] for name in adds}
    norms = sorted(name for name in found if name.endswith("_bn"))
    assert len(norms) == 17
    assert norms == sorted([*(n for n in names_of(model, layers.BatchNormalization) if "preact" in n), "post_bn"])
    pools = [name for name in found if name not in adds and name not in norms]
    assert sorted(pools) == ["max_pooling2d", "max_pooling2d_1", "max_pooling2d_2", "pool1_pool"]


@pytest.mark.slow
def test_efficientnet_quantizes_residuals_and_squeeze_and_excite():
    model = application("EfficientNetB0")
    found = asked(EfficientNetQDQCase(), model)
    adds, products = names_of(model, layers.Add), names_of(model, layers.Multiply)
    assert list(found) != []
    assert sorted(found) == sorted(adds + products)
    assert {name: found[name] for name in products} == {name: [0, 1] for name in products}
    # The branch Conv-BN-Dropout comes first, the identity second.
    assert {name: found[name] for name in adds} == {name: [1] for name in adds}
    assert (len(adds), len(products)) == (9, 16)


@pytest.mark.slow
def test_mobilenet_quantizes_the_identity_of_each_residual():
    model = application("MobileNetV2")
    found = asked(MobileNetQDQCase(), model)
    assert found == {name: [0] for name in names_of(model, layers.Add)}
    assert len(found) == 10


@pytest.mark.slow
def test_inception_quantizes_max_pools():
    model = application("InceptionV3", size=75)
    found = asked(InceptionQDQCase(), model)
    assert list(found) == names_of(model, layers.MaxPooling2D)
    assert len(found) == 4
