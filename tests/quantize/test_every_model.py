"""`quantize_model` on models of every kind: nested, shared, subclassed, with own classes, with any output."""

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from quantized_models import assert_same_snapshot, quantized, snapshot, spec_of
from small_models import BUILDERS, assert_same_arrays, data_for, randomize
from tensorflow_quantization.custom_qdq_cases import ResNetV1QDQCase, ResNetV2QDQCase

from tensorflow_quantization import (
    describe,
    quantize_model,
)
from tensorflow_quantization.targets import TARGETS


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_original_stays_as_it_was(name):
    model = BUILDERS[name]()
    model.compile("adam", "mse")
    x = data_for(model)
    expected = model(x)
    before = snapshot(model)
    q_model = quantize_model(model)
    assert_same_snapshot(snapshot(model), before)
    target = keras.tree.map_structure(lambda y: np.ones(y.shape, "float32"), expected)
    if not isinstance(model, small_models.Subclassed):
        q_model.fit(x, target, verbose=0)
        assert_same_arrays(model(x), expected)


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_are_those_of_the_original_and_trained_apart(name):
    model = BUILDERS[name]()
    q_model = quantize_model(model)
    own = [w for w in q_model.weights if "quantizer" not in w.path]
    assert_same_arrays(own, list(model.weights))
    assert not {id(w) for w in q_model.weights} & {id(w) for w in model.weights}


EXPECTED = {
    "functional": ["conv", "gap", "dense"],
    "residual": ["stem", "conv", "gap", "dense"],
    "residual_tuple": ["stem", "conv", "gap", "dense"],
    "sequential": ["conv", "dense"],
    "nested": ["backbone/conv", "gap", "head"],
    "nested_sequential": ["body/conv", "dense"],
    "siamese": ["encoder/conv", "encoder/gap", "dense"],
    "shared_layer": ["shared"],
    "dict": ["class", "box"],
    "operations": ["conv", "dense"],
    "subclassed": ["conv", "gap", "dense"],
}


@pytest.mark.parametrize("name", BUILDERS)
def test_layers_of_any_model_are_quantized_where_they_are(name, tmp_path):
    model = BUILDERS[name]()
    q_model = quantize_model(model)
    assert quantized(q_model) == EXPECTED[name]
    if name != "subclassed":
        assert type(q_model) is type(model)
    x = data_for(model)
    q_model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_arrays(loaded(x), q_model(x))


def test_shared_layer_has_one_range_for_all_its_calls():
    q_model = quantize_model(small_models.shared_layer())
    (wrapper,) = [layer for layer in q_model.layers if layer.name == "quant_shared"]
    assert len(wrapper.activation_quantizers) == 1
    assert len(q_model.trainable_weights) == 2


@pytest.mark.parametrize("as_tuple", [False, True])
def test_add_of_list_or_tuple_is_quantized_by_index(as_tuple):
    model = small_models.residual(as_tuple=as_tuple)
    q_model = quantize_model(model, custom_qdq_cases=[ResNetV1QDQCase()])
    add = q_model.get_layer("quant_add")
    assert [q is not None for q in add.input_quantizers] == [True, False]
    assert np.isfinite(q_model.predict(data_for(model), verbose=0)).all()


def test_subclassed_model_becomes_a_functional_one_with_its_training_step_reported():
    class OwnStep(small_models.Subclassed):
        def train_step(self, data):
            return {}

    model = OwnStep()
    model(np.zeros((1, 8, 8, 3), "float32"))
    with pytest.warns(UserWarning, match="without its train_step"):
        q_model = quantize_model(model)
    assert type(q_model) is keras.Model or type(q_model).__name__ == "Functional"


@pytest.mark.slow
def test_backbone_of_keras_applications_in_a_classifier():
    backbone = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)
    backbone.trainable = False
    inputs = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
    model = keras.Model(inputs, layers.Dense(3)(x))
    q_model = quantize_model(model)
    q_backbone = q_model.layers[1]
    assert q_backbone.name == backbone.name
    assert not q_backbone.trainable
    assert len(q_model.trainable_weights) == 2
    convolutions = sum(isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)) for layer in backbone.layers)
    assert len(quantized(q_model)) == convolutions + 2
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    assert np.isfinite(q_model.predict(x, verbose=0)).all()


class Squash(layers.Layer):
    """A custom layer with get_config."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return ops.tanh(x * self.factor)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def test_custom_layers_and_lambdas_are_left_as_they_are():
    inputs = keras.Input((4,))
    x = Squash(2.0, name="squash")(layers.Dense(4, name="dense")(inputs))
    model = randomize(keras.Model(inputs, layers.Lambda(lambda x: x * 2, name="twice", output_shape=(4,))(x)))
    q_model = quantize_model(model)
    assert quantized(q_model) == ["dense"]
    assert q_model.get_layer("squash").factor == 2.0


def test_named_custom_layer_gets_its_inputs_quantized():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Squash(name="squash")(inputs))
    q_model = quantize_model(model, "partial", quantization_spec=spec_of("squash"))
    assert quantized(q_model) == ["squash"]


def test_wrappers_around_layers_are_left_untouched():
    inputs = keras.Input((5, 4))
    x = layers.TimeDistributed(layers.GRU(3), name="each")(layers.Reshape((5, 2, 2))(inputs))
    model = randomize(keras.Model(inputs, layers.Bidirectional(layers.LSTM(2), name="both")(x)))
    q_model = quantize_model(model, "partial", quantization_spec=spec_of("none"))
    assert quantized(q_model) == []
    x = data_for(model)
    assert_same_arrays(q_model(x), model(x))
    with pytest.raises(ValueError, match=r"each \(TimeDistributed\): .*\n  both \(Bidirectional\): "):
        quantize_model(model)


def test_same_layer_names_in_two_nested_models():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate(name="concat")([small_models.backbone(n)(inputs) for n in ("left", "right")])
    model = keras.Model(inputs, x)
    assert quantized(quantize_model(model)) == ["left/conv", "right/conv"]
    assert quantized(quantize_model(model, "partial", quantization_spec=spec_of("right/conv"))) == ["right/conv"]


# Documented facts of keras.applications


def add_indices(q_model):
    return {
        layer.name.removeprefix("quant_"): [i for i, q in enumerate(layer.input_quantizers) if q is not None]
        for layer in q_model.layers
        if layer.name.startswith("quant_") and isinstance(layer.layer, layers.Add)
    }


@pytest.mark.slow
def test_resnet50v2_quantized_by_its_case():
    model = keras.applications.ResNet50V2(weights=None, input_shape=(32, 32, 3), classes=10)
    q_model = quantize_model(model, custom_qdq_cases=[ResNetV2QDQCase()])
    assert list(add_indices(q_model).values()) == [[0]] * 16
    wrapped = [layer.layer for layer in q_model.layers if layer.name.startswith("quant_")]
    counts = {
        cls: sum(type(layer) is cls for layer in wrapped) for cls in (layers.BatchNormalization, layers.MaxPooling2D)
    }
    assert counts == {layers.BatchNormalization: 17, layers.MaxPooling2D: 4}
    assert np.isfinite(q_model.predict(np.zeros((1, 32, 32, 3), "float32"), verbose=0)).all()


class Product(layers.Layer):
    """A layer with two arguments: it has no wrapper, so a quantizer follows it."""

    def call(self, a, b):
        return a * b


def _conv(x, name):
    return layers.Conv2D(4, 3, padding="same", name=name)(x)


#: Outputs that are inputs, intermediates, the same tensor, or written by an operation.
OUTPUTS = {
    "the input": lambda x: [x, _conv(x, "conv")],
    "the input, in a dict": lambda x: {"features": x, "scores": _conv(x, "conv")},
    "the input twice": lambda x: [x, x, _conv(x, "conv")],
    "the input and an activation": lambda x: [x, layers.ReLU(name="relu")(_conv(x, "conv"))],
    "an intermediate": lambda x: (lambda y: [y, layers.ReLU(name="relu")(y)])(_conv(x, "conv")),
    "a tensor twice": lambda x: [_conv(x, "conv")] * 2,
    "two outputs of an operation": lambda x: ops.split(_conv(x, "conv"), 2, axis=-1),
    "the sum, an intermediate and the input": lambda x: (lambda y: [ops.relu(y + x), y, x])(_conv(x, "conv")),
    "an operation": lambda x: (lambda y: [y, _conv(y, "last")])(_conv(x, "a") + _conv(x, "b")),
    "a layer with two arguments": lambda x: (lambda y: [y, _conv(y, "last")])(Product()(_conv(x, "a"), _conv(x, "b"))),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, *TARGETS])
@pytest.mark.parametrize("name", OUTPUTS)
def test_any_tensor_can_be_an_output(name, target):
    feat = keras.Input((8, 8, 4), name="feat")
    model = randomize(keras.Model(feat, OUTPUTS[name](feat)))
    result = quantize_model(model, target=target)
    x = data_for(model)
    result(x, training=True)  # the ranges of this batch
    found, wanted = keras.tree.flatten(result(x)), keras.tree.flatten(model(x))
    for is_input, y, reference in zip([output is feat for output in model.outputs], found, wanted, strict=True):
        y, reference = ops.convert_to_numpy(y), ops.convert_to_numpy(reference)
        np.testing.assert_allclose(y, reference, atol=0 if is_input else 0.03 * np.abs(reference).max())
    assert isinstance(describe(result).to_dict(), dict)
    assert list(result.output_names) == list(model.output_names)
