import warnings

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from quantized_models import assert_same_snapshot, quantized, snapshot, spec_of
from small_models import BUILDERS
from tensorflow_quantization.custom_qdq_cases import MaxPoolQDQCase, ResNetV1QDQCase, ResNetV2QDQCase

import tensorflow_quantization
from tensorflow_quantization import (
    CustomQDQInsertionCase,
    LayerConfig,
    QuantizationSpec,
    describe,
    quantize_model,
)
from tensorflow_quantization.model.weights import merged_array
from tensorflow_quantization.quantize import quantize_model as documented_quantize_model
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.wrappers import wrappers_in


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


class OfKeras2:
    """Stands for a model of the package `tf_keras`."""


OfKeras2.__module__, OfKeras2.__name__ = "tf_keras.src", "Functional"


def not_built():
    return keras.Sequential([layers.Dense(2)])


@pytest.mark.parametrize(
    ("model", "arguments", "error", "message"),
    [
        (lambda: "m.keras", {}, TypeError, r"Expected a keras\.Model, got the path 'm\.keras'\. Load it"),
        (lambda: None, {}, TypeError, r"Expected a keras\.Model, got NoneType\.$"),
        (lambda: layers.Dense(2, name="fc"), {}, TypeError, r"Expected a keras\.Model, got the layer 'fc' \(Dense\)\."),
        (lambda: keras.Sequential, {}, TypeError, r"got the class Sequential\. Pass an instance"),
        (OfKeras2, {}, TypeError, r"got tf_keras\.src\.Functional\. Rebuild a model of Keras 2"),
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
        (small_models.cnn, {"input_bits": 1}, ValueError, "input_bits must be an integer from 2 to 8, or 16 .* got 1"),
        (small_models.cnn, {"input_bits": "8"}, ValueError, "integer from 2 to 8, or 16 .* got '8'"),
        (
            small_models.cnn,
            {"activation_bits": 4, "input_bits": 8},
            ValueError,
            r"activation_bits is 4, but input_bits, its older name, is 8\. Pass activation_bits only\.",
        ),
        (
            small_models.cnn,
            {"ranges": "minmax"},
            ValueError,
            "one of 'ema', 'last', 'learned', 'learned_offset', got 'minmax'",
        ),
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


def only_softmax():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Softmax(name="softmax")(inputs), name="net")


@pytest.mark.parametrize("target", [None, "onnxruntime", "openvino", "tensorrt"])
def test_nothing_to_quantize_is_an_error_that_says_why(target):
    message = r"Nothing is quantized in model 'net':\n  softmax \(Softmax\): \w.*\nKeep the model in float"
    with pytest.raises(ValueError, match=message):
        quantize_model(only_softmax(), target=target)
    assert not plan_model(only_softmax(), target=target).quantizes


def test_a_spec_may_leave_the_whole_model_in_float():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="fc")(inputs))
    spec = QuantizationSpec()
    spec.add("fc", quantize_input=False, quantize_weight=False)
    assert not describe(quantize_model(model, quantization_spec=spec))["fc"].quantized


# Learned steps of weights


def test_weight_ranges_reach_every_kernel_and_start_at_its_values():
    q_model = quantize_model(small_models.residual(), target="onnxruntime", weight_ranges="learned")
    found = [(w, name, q) for w in wrappers_in(q_model) for name, q in w.weight_quantizers.items()]
    assert len(found) == 3
    for wrapper, name, quantizer in found:
        assert quantizer.learns
        assert not quantizer.follows_weight
        scale, _ = quantizer.parameters(merged_array(wrapper.layer, name))
        start = ops.convert_to_numpy(quantizer.steps)
        np.testing.assert_array_equal(scale, start)
        fresh = type(quantizer)(quantizer.scheme, "learned")
        fresh.build(merged_array(wrapper.layer, name).shape)
        fresh.start(merged_array(wrapper.layer, name))
        np.testing.assert_array_equal(ops.convert_to_numpy(fresh.steps), start)


def test_unknown_weight_ranges_are_refused(cnn):
    with pytest.raises(ValueError, match="weight_ranges must be one of 'minmax', 'learned', got 'ema'"):
        quantize_model(cnn, weight_ranges="ema")
