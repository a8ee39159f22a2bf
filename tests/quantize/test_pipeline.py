import warnings

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import BUILDERS, assert_same_arrays, data_for, randomize, values
from tensorflow_quantization.custom_qdq_cases import MaxPoolQDQCase, ResNetV1QDQCase, ResNetV2QDQCase

import tensorflow_quantization
from tensorflow_quantization import (
    CustomQDQInsertionCase,
    LayerConfig,
    QuantizationSpec,
    describe,
    quantize_model,
)
from tensorflow_quantization.model.keras_internals import nodes_of, reading_nodes, sublayers
from tensorflow_quantization.quantize import quantize_model as documented_quantize_model
from tensorflow_quantization.targets import TARGETS


def quantized(model):
    """The paths of the quantized layers, by their original names."""
    return [layer.name.replace("quant_", "") for layer in describe(model) if layer.quantized]


def spec_of(*names, **arguments):
    spec = QuantizationSpec()
    for name in names:
        spec.add(name, **arguments)
    return spec


def snapshot(model):
    """Everything about a model that quantizing it might disturb."""
    return {
        "weights": values(model),
        "config": keras.saving.serialize_keras_object(model)
        if not isinstance(model, small_models.Subclassed)
        else None,
        "nodes": [(layer.name, len(nodes_of(layer)), len(reading_nodes(layer))) for layer in sublayers(model)],
        "identities": [id(layer) for layer in [model, *sublayers(model)]],
        "compiled": model.compiled,
        "optimizer": id(getattr(model, "optimizer", None)),
        "trainable": [w.trainable for w in model.weights],
    }


def assert_same_snapshot(actual, expected):
    assert_same_arrays(actual.pop("weights"), expected.pop("weights"))
    assert actual == expected


def test_documented_import_paths_and_globals():
    assert documented_quantize_model is quantize_model
    assert tensorflow_quantization.G_NUM_BITS == 8
    assert tensorflow_quantization.G_NARROW_RANGE is True
    assert tensorflow_quantization.G_SYMMETRIC is True
    assert tensorflow_quantization.__version__


# Modes


def test_full_default_quantizes_what_the_table_says(cnn):
    q_model = quantize_model(cnn)
    assert [layer.name for layer in q_model.layers] == [
        *["image", "quant_conv", "bn", "relu"],
        *["pool", "quant_gap", "quant_dense"],
    ]


def test_full_custom_quantizes_the_named_as_told_and_the_rest_by_the_table(cnn):
    spec = spec_of("conv", quantize_input=False)
    spec.add("pool")
    q_model = quantize_model(cnn, quantization_spec=spec)
    assert quantized(q_model) == ["conv", "pool", "gap", "dense"]
    assert q_model.get_layer("quant_conv").activation_quantizers == []


def test_partial_quantizes_only_what_is_named(cnn):
    assert quantized(quantize_model(cnn, "partial", quantization_spec=spec_of("dense"))) == ["dense"]
    assert quantized(quantize_model(cnn, "partial", custom_qdq_cases=[MaxPoolQDQCase()])) == ["pool"]


def test_partial_by_class(cnn):
    q_model = quantize_model(cnn, quantization_mode="partial", quantization_spec=spec_of("Dense", is_keras_class=True))
    assert quantized(q_model) == ["dense"]


def test_layer_with_everything_switched_off_is_not_wrapped(cnn):
    spec = spec_of("conv", quantize_input=False, quantize_weight=False)
    q_model = quantize_model(cnn, quantization_spec=spec)
    assert type(q_model.get_layer("conv")) is layers.Conv2D


def test_documented_positional_arguments(residual):
    q_model = quantize_model(residual, "full", spec_of("dense"), [ResNetV1QDQCase()])
    assert quantized(q_model) == ["stem", "conv", "add", "gap", "dense"]


def test_further_arguments_are_keyword_only(cnn):
    with pytest.raises(TypeError):
        quantize_model(cnn, "full", None, None, "ema")


def test_glob_names(residual):
    q_model = quantize_model(residual, "partial", quantization_spec=spec_of("*conv", "st?m"))
    assert quantized(q_model) == ["stem", "conv"]


# Precedence and cases


class AllOf(CustomQDQInsertionCase):
    """Quantizes all layers of a class."""

    def __init__(self, layer_class, **arguments):
        self.layer_class, self.arguments = layer_class, arguments

    def case(self, keras_model, qspec):
        spec = QuantizationSpec()
        for layer in keras_model.layers:
            if type(layer).__name__ == self.layer_class:
                spec.add(layer.name, **self.arguments)
        return spec


def test_case_of_the_user(cnn):
    assert quantized(quantize_model(cnn, custom_qdq_cases=[AllOf("ReLU")])) == ["conv", "relu", "gap", "dense"]
    switched_off = quantize_model(cnn, custom_qdq_cases=[AllOf("Dense", quantize_input=False, quantize_weight=False)])
    assert quantized(switched_off) == ["conv", "gap"]


def test_name_wins_over_class_over_case(residual):
    off = {"quantize_input": False, "quantize_weight": False}
    case = AllOf("Add", quantization_index=[0])
    q_model = quantize_model(residual, custom_qdq_cases=[case])
    assert q_model.get_layer("quant_add").quantize_specific_input_indices == [0]
    spec = spec_of("Add", is_keras_class=True, quantization_index=[1])
    q_model = quantize_model(residual, quantization_spec=spec, custom_qdq_cases=[case])
    assert q_model.get_layer("quant_add").quantize_specific_input_indices == [1]
    spec.add("add", **off)
    assert "add" not in quantized(quantize_model(residual, quantization_spec=spec, custom_qdq_cases=[case]))


def test_case_sees_the_users_spec_and_cannot_change_it(cnn):
    seen = []

    class Curious(CustomQDQInsertionCase):
        def case(self, keras_model, qspec):
            seen.extend(entry.name for entry in qspec.layers)
            qspec.add("relu")
            qspec.layers[0].quantize_input = qspec.layers[0].quantize_weight = False
            return

    spec = spec_of("dense")
    q_model = quantize_model(cnn, quantization_spec=spec, custom_qdq_cases=[Curious()])
    assert seen == ["dense"]
    assert spec.layers == [LayerConfig("dense")]
    assert "dense" in quantized(q_model)
    assert "relu" not in quantized(q_model)


def test_a_single_case_needs_no_list(residual):
    assert "add" in quantized(quantize_model(residual, custom_qdq_cases=ResNetV2QDQCase()))


# Integers


def schemes(q_model, name="quant_conv"):
    wrapper = q_model.get_layer(name)
    return wrapper.input_quantizers[0].scheme, wrapper.weight_quantizers["kernel"].scheme


def test_default_integers(cnn):
    activation, weight = schemes(quantize_model(cnn))
    assert (activation.qmin, activation.qmax, activation.axis, activation.symmetric) == (-127, 127, None, True)
    assert (weight.qmin, weight.qmax, weight.axis, weight.symmetric) == (-127, 127, (-1,), True)


@pytest.mark.parametrize(
    ("name", "value", "limits", "symmetric"),
    [
        ("G_NUM_BITS", 4, (-7, 7), True),
        ("G_NARROW_RANGE", False, (-128, 127), True),
        ("G_SYMMETRIC", False, (-127, 127), False),
    ],
)
def test_globals_are_read_when_quantize_model_is_called(cnn, monkeypatch, name, value, limits, symmetric):
    monkeypatch.setattr(tensorflow_quantization, name, value)
    for scheme in schemes(quantize_model(cnn)):
        assert (scheme.qmin, scheme.qmax) == limits
        assert scheme.symmetric is symmetric


def test_arguments_win_over_globals_and_entries_over_arguments(cnn, monkeypatch):
    monkeypatch.setattr(tensorflow_quantization, "G_NUM_BITS", 3)
    spec = spec_of("dense", weight_bits=2, activation_bits=6)
    q_model = quantize_model(cnn, quantization_spec=spec, weight_bits=4)
    assert [scheme.bits for scheme in schemes(q_model)] == [3, 4]
    assert [scheme.bits for scheme in schemes(q_model, "quant_dense")] == [6, 2]


@pytest.mark.parametrize("argument", ["activation_bits", "input_bits"])
def test_bits_of_activations_have_two_names(cnn, argument):
    q_model = quantize_model(cnn, quantization_spec=spec_of("dense", **{argument: 6}), **{argument: 5})
    assert [scheme.bits for scheme in schemes(q_model)] == [5, 8]
    assert [scheme.bits for scheme in schemes(q_model, "quant_dense")] == [6, 8]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_fewer_bits_give_fewer_values(cnn, bits):
    wrapper = quantize_model(cnn, weight_bits=bits).get_layer("quant_conv")
    kernel = ops.convert_to_numpy(wrapper.weight_quantizers["kernel"](ops.convert_to_tensor(wrapper.layer.kernel)))
    per_channel = [len(np.unique(kernel[..., channel])) for channel in range(kernel.shape[-1])]
    assert 2 < max(per_channel) <= 2**bits - 1 or bits == 2
    assert max(per_channel) <= 2**bits - 1


@pytest.mark.parametrize("ranges", ["ema", "last", "learned"])
def test_ranges_reach_every_quantizer(cnn, ranges):
    q_model = quantize_model(cnn, ranges=ranges)
    assert {q.ranges for layer in q_model.layers[1:] for q in getattr(layer, "activation_quantizers", [])} == {ranges}


def test_quantized_model_is_close_to_the_float_one_and_not_the_same(cnn, images):
    expected = cnn.predict(images[0], verbose=0)
    found = quantize_model(cnn).predict(images[0], verbose=0)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


# Models of every kind


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
    q_model = quantize_model(model)
    assert quantized(q_model) == []
    x = data_for(model)
    assert_same_arrays(q_model(x), model(x))


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


# Warnings


def test_unknown_name_is_warned_of_at_the_line_of_the_user(cnn):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        q_model = quantize_model(cnn, quantization_spec=spec_of("dens"))
    (warning,) = [w for w in caught if "dens" in str(w.message)]
    assert "Did you mean 'dense'" in str(warning.message)
    assert warning.filename == __file__
    assert quantized(q_model) == ["conv", "gap", "dense"]


def test_wrong_index_is_warned_of_at_the_line_of_the_user(residual):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantize_model(residual, quantization_spec=spec_of("ad*", quantization_index=[0, 7]))
    (warning,) = [w for w in caught if "quantization_index" in str(w.message)]
    assert warning.filename == __file__


class LostStep(keras.Sequential):
    def __init__(self):
        super().__init__([keras.Input((4,)), layers.Dense(2)])

    def train_step(self, data):
        return {}


@pytest.mark.parametrize("where", ["outermost", "nested"])
def test_lost_training_step_is_warned_of_at_the_line_of_the_user(where):
    model = LostStep()
    if where == "nested":
        inputs = keras.Input((4,))
        model = keras.Model(inputs, model(inputs))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantize_model(model)
    (warning,) = [w for w in caught if "train_step" in str(w.message)]
    assert warning.filename == __file__


def test_nothing_is_warned_of_otherwise(recwarn):
    for build in BUILDERS.values():
        quantize_model(build())
    assert [str(w.message) for w in recwarn if issubclass(w.category, UserWarning)] == []


# Bad input


class WrongType(CustomQDQInsertionCase):
    def case(self, keras_model, qspec):
        return ["add"]


def not_built():
    return keras.Sequential([layers.Dense(2)])


@pytest.mark.parametrize(
    ("model", "arguments", "error", "message"),
    [
        (lambda: "model", {}, TypeError, r"Expected a keras\.Model, got builtins\.str"),
        (lambda: None, {}, TypeError, r"Expected a keras\.Model"),
        (lambda: layers.Dense(2), {}, TypeError, r"Expected a keras\.Model"),
        (not_built, {}, ValueError, "is not built.*Call it once on a batch of data"),
        (small_models.cnn, {"quantization_mode": "ful"}, ValueError, "must be 'full' or 'partial', got 'ful'.*'full'"),
        (small_models.cnn, {"quantization_mode": None}, ValueError, "must be 'full' or 'partial', got None"),
        (small_models.cnn, {"quantization_mode": "partial"}, ValueError, "nothing is: pass a quantization_spec"),
        (
            small_models.cnn,
            {"quantization_mode": "partial", "quantization_spec": QuantizationSpec()},
            ValueError,
            "nothing is: pass a quantization_spec",
        ),
        (small_models.cnn, {"quantization_spec": {"conv": 8}}, TypeError, "must be a QuantizationSpec, got dict"),
        (small_models.cnn, {"quantization_spec": ["conv"]}, TypeError, "must be a QuantizationSpec, got list"),
        (small_models.cnn, {"custom_qdq_cases": ["ResNet"]}, TypeError, "instances of CustomQDQInsertionCase"),
        (small_models.cnn, {"custom_qdq_cases": 3}, TypeError, "instances of CustomQDQInsertionCase"),
        (small_models.cnn, {"custom_qdq_cases": [ResNetV1QDQCase]}, TypeError, r"such as \[ResNetV1QDQCase\(\)\]"),
        (
            small_models.cnn,
            {"custom_qdq_cases": [WrongType()]},
            TypeError,
            r"WrongType\.case must return a QuantizationSpec or None, got list",
        ),
        (small_models.cnn, {"weight_bits": 9}, ValueError, "weight_bits must be an integer from 2 to 8, got 9"),
        (small_models.cnn, {"input_bits": 1}, ValueError, "input_bits must be an integer from 2 to 8, got 1"),
        (small_models.cnn, {"input_bits": "8"}, ValueError, "input_bits must be an integer from 2 to 8, got '8'"),
        (
            small_models.cnn,
            {"activation_bits": 4, "input_bits": 8},
            ValueError,
            r"activation_bits is 4, but input_bits, its older name, is 8\. Pass activation_bits only\.",
        ),
        (small_models.cnn, {"ranges": "minmax"}, ValueError, "must be one of 'ema', 'last', 'learned', got 'minmax'"),
        (small_models.cnn, {"target": "tensorr"}, ValueError, "target must be one of .*Did you mean 'tensorrt'"),
        (lambda: quantize_model(small_models.cnn()), {}, ValueError, "is quantized already: 'quant_conv'"),
        (lambda: quantize_model(small_models.nested()), {}, ValueError, "is quantized already: 'backbone/quant_conv'"),
    ],
)
def test_bad_input_is_refused(model, arguments, error, message):
    with pytest.raises(error, match=message):
        quantize_model(model(), **arguments)


@pytest.mark.parametrize("bits", [1, 16, "8"])
def test_global_out_of_range_is_named(cnn, monkeypatch, bits):
    monkeypatch.setattr(tensorflow_quantization, "G_NUM_BITS", bits)
    with pytest.raises(ValueError, match="G_NUM_BITS must be an integer from 2 to 8"):
        quantize_model(cnn)


def test_model_quantized_by_keras_itself_is_refused():
    model = small_models.randomize(keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")]))
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"'dense' is quantized already, by Keras' own model\.quantize"):
        quantize_model(model)


def test_refused_model_is_left_as_it_was(cnn):
    before = snapshot(cnn)
    with pytest.raises(TypeError):
        quantize_model(cnn, custom_qdq_cases=[WrongType()])
    assert_same_snapshot(snapshot(cnn), before)


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
    "the input and an activation": lambda x: [x, layers.ReLU(name="relu")(x)],
    "an intermediate": lambda x: (lambda y: [y, layers.ReLU(name="relu")(y)])(_conv(x, "conv")),
    "a tensor twice": lambda x: [_conv(x, "conv")] * 2,
    "two outputs of an operation": lambda x: ops.split(_conv(x, "conv"), 2, axis=-1),
    "an operation": lambda x: (lambda y: [y, _conv(y, "last")])(_conv(x, "a") + _conv(x, "b")),
    "a layer with two arguments": lambda x: (lambda y: [y, _conv(y, "last")])(Product()(_conv(x, "a"), _conv(x, "b"))),
}


@pytest.mark.parametrize("target", [None, *TARGETS])
@pytest.mark.parametrize("name", OUTPUTS)
def test_any_tensor_can_be_an_output(name, target):
    feat = keras.Input((8, 8, 4), name="feat")
    model = randomize(keras.Model(feat, OUTPUTS[name](feat)))
    result = quantize_model(model, target=target)
    x = 0.2 * data_for(model)  # within the range of quantizers that saw no data
    found, wanted = keras.tree.flatten(result(x)), keras.tree.flatten(model(x))
    for is_input, y, reference in zip([output is feat for output in model.outputs], found, wanted, strict=True):
        y, reference = ops.convert_to_numpy(y), ops.convert_to_numpy(reference)
        np.testing.assert_allclose(y, reference, atol=0 if is_input else 0.3)
    assert isinstance(describe(result).to_dict(), dict)
