import re

import keras
import pytest
import small_models
from keras import layers

from tensorflow_quantization import NonWeightedBaseQuantizeWrapper, QuantizationSpec
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.quantize.planner import make_plan
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets import DEFAULT
from tensorflow_quantization.targets.reason import ReasonCode


def plan_of(model, *entries, **arguments):
    """The plan for a model, with a spec of these entries (arguments of `QuantizationSpec.add`)."""
    return make_plan(LayerGraph.trace(model).flatten(), target=DEFAULT, spec=spec_of(*entries), **arguments)


def spec_of(*entries):
    spec = QuantizationSpec()
    for entry in entries:
        spec.add(**entry)
    return spec


def decisions(plan):
    """Path to (inputs, weights) of what is quantized."""
    return {layer.path: (layer.inputs, layer.weights) for layer in plan if layer.quantized}


def test_plan_is_a_table_in_notebooks(cnn):
    html = plan_of(cnn)._repr_html_()
    assert "<td>conv</td><td>Conv2D</td><td>input [0] and weights</td><td>default</td>" in html
    assert html.count("<tr>") == 1 + len(plan_of(cnn).layers)


def test_default_table_layer_by_layer():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Add(name="add")([x, inputs])
    x = layers.Multiply(name="multiply")([x, inputs])
    x = layers.Concatenate(name="concat")([x, inputs])
    x = layers.MaxPooling2D(name="max")(x)
    x = layers.AveragePooling2D(2, name="average")(x)
    x = layers.GlobalAveragePooling2D(name="global")(x)
    model = keras.Model(inputs, layers.Dense(2, name="dense")(layers.ReLU(name="relu")(x)))
    plan = plan_of(model)
    assert decisions(plan) == {
        "conv": ((0,), True),
        "depthwise": ((0,), True),
        "average": ((0,), False),
        "global": ((0,), False),
        "dense": ((0,), True),
    }
    assert plan["conv"].reason.text == "default"
    assert plan["relu"].reason.text == "no quantize wrapper for ReLU"
    for name, case in {"add": "ResidualConnectionQDQCase", "max": "MaxPoolQDQCase"}.items():
        assert case in plan[name].reason.text
    assert plan["bn"].reason.text == "folded into conv"


ADD = {"name": "Add", "is_keras_class": True, "quantize_weight": False}


@pytest.mark.parametrize(
    ("entries", "cases", "expected"),
    [
        ([], [], None),
        ([], [{"name": "add", "quantization_index": 0}], (0,)),
        ([ADD | {"quantization_index": 1}], [{"name": "add", "quantization_index": 0}], (1,)),
        ([{"name": "a*"}, ADD | {"quantization_index": 1}], [], (0, 1)),
        ([{"name": "add", "quantization_index": 0}, {"name": "a*"}], [], (0,)),
        ([{"name": "add", "quantize_input": False}, ADD], [{"name": "add"}], None),
    ],
    ids=["default", "case", "class over case", "pattern over class", "name over pattern", "switched off by name"],
)
def test_name_wins_over_class_over_cases_over_default(entries, cases, expected):
    plan = plan_of(small_models.residual(), *entries, case_specs=[("MyCase", spec_of(*cases))])
    assert (plan["add"].inputs or None) == expected


def test_reason_says_who_decided(residual):
    case_specs = [("MyCase", spec_of({"name": "relu"}))]
    plan = plan_of(residual, {"name": "add"}, {"name": "Dense", "is_keras_class": True}, case_specs=case_specs)
    assert plan["add"].reason.text == "name 'add' in the spec"
    assert plan["dense"].reason.text == "class 'Dense' in the spec"
    assert plan["relu"].reason.text == "MyCase"


def test_last_case_counts():
    cases = [("First", spec_of({"name": "add"})), ("Second", spec_of({"name": "add", "quantization_index": 1}))]
    plan = plan_of(small_models.residual(), case_specs=cases)
    assert plan["add"].inputs == (1,)
    assert plan["add"].reason.text == "Second"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ((0,), True)),
        ({"quantize_input": False}, ((), True)),
        ({"quantize_weight": False}, ((0,), False)),
        ({"quantize_input": False, "quantize_weight": False}, None),
    ],
)
@pytest.mark.parametrize("by_class", [False, True])
def test_entries_honour_their_flags(cnn, by_class, flags, expected):
    entry = {"name": "Conv2D", "is_keras_class": True} if by_class else {"name": "conv"}
    plan = plan_of(cnn, entry | flags)
    assert decisions(plan).get("conv") == expected
    if expected is None:
        assert plan["conv"].reason.text.startswith("switched off")


def test_partial_mode_takes_only_what_is_named(cnn):
    plan = plan_of(cnn, {"name": "dense"}, mode="partial")
    assert list(decisions(plan)) == ["dense"]
    assert plan["conv"].reason.text == "not named (partial mode)"


def test_named_layer_without_a_wrapper_gets_its_inputs_quantized(cnn):
    assert decisions(plan_of(cnn, {"name": "relu"}, mode="partial")) == {"relu": ((0,), False)}


def test_shared_layer_has_one_decision():
    assert decisions(plan_of(small_models.shared_layer())) == {"shared": ((0,), True)}
    assert list(decisions(plan_of(small_models.siamese()))) == ["encoder/conv", "encoder/gap", "dense"]


def test_nested_layers_are_found_by_name_by_path_and_by_pattern():
    for name in ("relu", "backbone/relu", "backbone/r*", "*/relu"):
        assert list(decisions(plan_of(small_models.nested(), {"name": name}, mode="partial"))) == ["backbone/relu"], (
            name
        )


def test_path_tells_layers_of_the_same_name_apart():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate(name="concat")([small_models.backbone(n)(inputs) for n in ("left", "right")])
    model = keras.Model(inputs, x)
    assert list(decisions(plan_of(model, {"name": "right/conv"}, mode="partial"))) == ["right/conv"]
    assert list(decisions(plan_of(model, {"name": "conv"}, mode="partial"))) == ["left/conv", "right/conv"]


def test_subclass_of_a_layer_follows_the_table_and_class_entries_of_its_base():
    class MyDense(layers.Dense):
        pass

    inputs = keras.Input((4,))
    model = keras.Model(inputs, MyDense(2, name="mine")(inputs))
    assert decisions(plan_of(model)) == {"mine": ((0,), True)}
    off = {"name": "Dense", "is_keras_class": True, "quantize_weight": False}
    assert decisions(plan_of(model, off)) == {"mine": ((0,), False)}
    own = {"name": "MyDense", "is_keras_class": True, "quantize_input": False}
    assert decisions(plan_of(model, off, own)) == {"mine": ((), True)}


def test_integer_inputs_are_not_quantized():
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, layers.Embedding(5, 2, name="embedding")(ids))
    plan = plan_of(model, {"name": "embedding"})
    assert decisions(plan) == {}
    assert plan["embedding"].reason.text == "its input is int32, not float"


def test_operations_have_a_reason_of_their_own():
    plan = plan_of(small_models.operations())
    assert list(decisions(plan)) == ["conv", "dense"]
    assert {layer.reason.text for layer in plan if not layer.quantized} == {"a keras.ops operation, not a layer"}


def test_bits_of_an_entry_win(cnn):
    plan = plan_of(
        cnn,
        {"name": "conv", "weight_bits": 4},
        {"name": "Dense", "is_keras_class": True, "input_bits": 6},
        activation_scheme=QuantizationScheme(bits=7),
        weight_scheme=QuantizationScheme(bits=5),
    )
    bits = {layer.path: (layer.activation_scheme.bits, layer.weight_scheme.bits) for layer in plan if layer.quantized}
    assert bits == {"conv": (7, 4), "gap": (7, 5), "dense": (6, 5)}


def test_weight_bits_of_a_layer_without_quantized_weights_are_an_error(cnn):
    for name, flags in (("relu", {}), ("conv", {"quantize_weight": False})):
        spec = QuantizationSpec()
        spec.add(name, weight_bits=4, **flags)
        with pytest.raises(ValueError, match=f"entry '{name}' has weight_bits=4, but no weights of layer '{name}'"):
            plan_model(cnn, quantization_spec=spec)
    spec = QuantizationSpec()
    spec.add("*", weight_bits=4)  # of the layers that have some
    assert plan_model(cnn, quantization_spec=spec)["conv"].weight_scheme.bits == 4


def test_output_is_quantized_on_request(cnn):
    plan = plan_of(cnn, {"name": "dense", "quantize_output": True})
    assert [layer.path for layer in plan if layer.output] == ["dense"]


@pytest.mark.parametrize(("index", "wrong"), [([0, 2], [2]), (5, [5])])
def test_index_that_a_named_layer_does_not_have_is_an_error(residual, index, wrong):
    with pytest.raises(ValueError, match=rf"Layer 'add' has 2 input.*{re.escape(str(wrong))} does not exist.*0 to 1"):
        plan_of(residual, {"name": "add", "quantization_index": index})


@pytest.mark.parametrize("entry", [{"name": "Add", "is_keras_class": True}, {"name": "ad*"}])
def test_index_of_an_entry_for_several_layers_is_warned_of(residual, entry):
    with pytest.warns(UserWarning, match=r"Layer 'add' has 2 input.*\[2\] of the entry.*is ignored there"):
        plan = plan_of(residual, entry | {"quantization_index": [0, 2]})
    assert plan["add"].inputs == (0,)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "dens"}, "The model has no layer or input named 'dens'.*does nothing. Did you mean 'dense'"),
        ({"name": "dens_*"}, r"no layer that matches 'dens_\*'"),
        ({"name": "Convv2D", "is_keras_class": True}, "no layer of class 'Convv2D'.*Did you mean 'Conv2D'"),
        ({"name": "xyzzy"}, "no layer or input named 'xyzzy'; this entry of the QuantizationSpec does nothing.$"),
        ({"name": "Conv3D", "is_keras_class": True}, "no layer of class 'Conv3D'.*Did you mean 'Conv2D'\\?$"),
        ({"name": "Dense"}, "'Dense' is a class: pass is_keras_class=True"),
        ({"name": "MaxPool2D"}, "'MaxPool2D' is a class: pass is_keras_class=True"),
        ({"name": "conv", "is_keras_class": True}, "'conv' is the name of a layer: leave out is_keras_class=True"),
        ({"name": "quant_bn"}, "Did you mean 'bn'. An entry names a layer of the float model"),
    ],
)
def test_unknown_name_is_warned_of_with_the_closest_and_the_rest_goes_on(cnn, entry, message):
    with pytest.warns(UserWarning, match=message):
        plan = plan_of(cnn, entry)
    assert list(decisions(plan)) == ["conv", "gap", "dense"]


def test_named_recurrent_layer_says_that_only_its_input_is_quantized():
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, layers.LSTM(2, name="lstm")(inputs))
    with pytest.warns(UserWarning, match=r"Layer 'lstm' \(LSTM\).*only its inputs are.*quantize_weight=False"):
        plan = plan_of(model, {"name": "lstm"})
    assert plan["lstm"].reason.text == "name 'lstm' in the spec; only its inputs: its weights stay float"
    assert plan_of(model, {"name": "lstm", "quantize_weight": False})["lstm"].inputs == (0,)


@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_custom_class_without_a_wrapper_says_what_to_do(target):
    class Scale(layers.Layer):
        def build(self, shape):
            self.gain = self.add_weight(shape=shape[-1:])

        def call(self, x):
            return x * self.gain

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Scale(name="scale")(layers.Dense(3)(inputs)))
    reason = plan_model(model, target=target)["scale"].reason
    assert reason.code is ReasonCode.NO_WRAPPER
    assert "write a ScaleQuantizeWrapper, or name the layer" in reason.text


def test_entry_that_overrides_a_case_says_so(residual):
    cases = [("MyCase", spec_of({"name": "add", "quantization_index": 0}))]
    plan = plan_of(residual, ADD, case_specs=cases)
    assert plan["add"].reason.text == "class 'Add' in the spec, which overrides MyCase"


def test_own_wrapper_quantizes_a_class_that_is_off_by_default(own_wrappers, cnn):
    class MaxPooling2DQuantizeWrapper(NonWeightedBaseQuantizeWrapper):
        pass

    assert plan_of(cnn)["pool"].wrapper is MaxPooling2DQuantizeWrapper
    assert plan_of(cnn)["pool"].inputs == (0,)


def test_text_has_a_line_a_layer(residual):
    text = str(plan_of(residual, {"name": "add", "quantization_index": 0})).splitlines()
    assert text[0] == "stem (Conv2D): input [0] and weights; default"
    assert text[3] == "add (Add): input [0]; name 'add' in the spec"
    assert text[4] == "relu (ReLU): float; no quantize wrapper for ReLU"
    assert len(text) == 7


def test_reasons_have_codes(residual):
    spec = spec_of({"name": "gap", "quantize_input": False}, {"name": "dense"})
    full = {layer.path: layer.reason.code for layer in plan_model(residual, quantization_spec=spec)}
    assert full == {
        "stem": "default",
        "conv": "default",
        "bn": "fused",
        "add": "off_by_default",
        "relu": "no_wrapper",
        "gap": "switched_off",
        "dense": "named",
    }
    partial = {layer.path: layer.reason.code for layer in plan_model(residual, "partial", spec_of({"name": "dense"}))}
    assert partial["stem"] == partial["relu"] == "not_named"


def test_planning_leaves_the_model_as_it_is(residual):
    before = [layer.name for layer in residual.layers]
    assert decisions(plan_model(residual, target="onnxruntime"))
    assert [layer.name for layer in residual.layers] == before


def test_normalization_after_a_quantized_output_is_not_called_folded(cnn):
    spec = QuantizationSpec()
    spec.add("conv", quantize_output=True)
    assert plan_model(cnn)["bn"].reason.code is ReasonCode.FUSED
    reason = plan_model(cnn, quantization_spec=spec)["bn"].reason
    assert reason.code is ReasonCode.NO_INTEGER_KERNEL
    assert str(reason) == "not folded: the output of conv is quantized"
