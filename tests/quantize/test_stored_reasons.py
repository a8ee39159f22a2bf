"""Why each layer is quantized or not is in the model, and in each copy of it."""

import keras
import pytest
import small_models
from keras import layers, ops
from small_models import BUILDERS, data_for, randomize

from tensorflow_quantization import BaseQuantizeWrapper, QuantizationSpec, calibrate, describe, quantize_model
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.quantize.stored_reasons import stored_reasons


class Block(layers.Layer):
    """Layers, a sum as a layer, and an operation."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(3, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.add = layers.Add(name="add")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build(input_shape)

    def call(self, inputs):
        return ops.relu(self.add([inputs, self.norm(self.conv(inputs))]))


def blocks():
    inputs = keras.Input((8, 8, 3))
    x = Block(name="block2")(Block(name="block1")(inputs))
    x = layers.Dense(5, activation="softmax", name="dense")(layers.GlobalAveragePooling2D(name="gap")(x))
    return randomize(keras.Model(inputs, x, name="blocks"))


MODELS = {**BUILDERS, "blocks": blocks}


def reloaded(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def decided(model):
    return [(layer.name, layer.class_name, layer.code, layer.reason) for layer in describe(model)]


def named(*names, **arguments):
    spec = QuantizationSpec()
    for name in names:
        spec.add(name, **arguments)
    return spec


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "onnxruntime"])
@pytest.mark.parametrize("name", MODELS)
def test_description_of_a_copy_is_the_description_of_the_model(tmp_path, name, target):
    model = quantize_model(MODELS[name](), target=target)
    calibrate(model, data_for(model), verbose=0)
    loaded = reloaded(model, tmp_path)
    assert describe(loaded).to_dict() == describe(model).to_dict()
    assert str(describe(loaded)) == str(describe(model))
    assert decided(keras.models.clone_model(model)) == decided(model)
    assert decided(reloaded(loaded, tmp_path)) == decided(model)


def test_every_call_of_the_plan_has_its_reason(residual):
    spec = named("gap", quantize_input=False)
    graph = LayerGraph.trace(quantize_model(residual, quantization_spec=spec))
    assert {path: reason.code for path, reason in stored_reasons(graph).items()} == {
        "quant_stem": "default",
        "quant_conv": "default",
        "bn": "fused",
        "add": "off_by_default",
        "relu": "no_wrapper",
        "gap": "switched_off",
        "quant_dense": "default",
    }


@pytest.mark.parametrize("build", [small_models.cnn, small_models.sequential, small_models.nested])
def test_model_in_which_nothing_is_quantized_has_its_reasons(tmp_path, build):
    float_model = build()
    spec = named("Conv2D", "Dense", is_keras_class=True, quantize_input=False, quantize_weight=False)
    model = quantize_model(float_model, "partial", spec)
    description = describe(model)
    assert not any(layer.quantized for layer in description)
    assert {"switched_off"} < {layer.code for layer in description} <= {"not_named", "switched_off", "fused"}
    assert [layer.name for layer in description] == [layer.name for layer in describe(float_model)]
    x = data_for(model)
    small_models.assert_same_arrays(model(x), float_model(x))
    assert describe(reloaded(model, tmp_path)).to_dict() == description.to_dict()
    assert decided(keras.models.clone_model(model)) == decided(model)


def test_model_of_an_older_version_has_the_reasons_of_the_default_table(residual):
    model = quantize_model(residual)
    for call in LayerGraph.trace(model).calls:
        if isinstance(call.operation, BaseQuantizeWrapper):
            call.operation.reasons = {}
    found = {layer.name: (layer.code, layer.reason) for layer in describe(model)}
    assert found["quant_conv"] == ("unknown", "wrapped")
    assert found["relu"] == ("no_wrapper", "no quantize wrapper for ReLU")


def test_operation_whose_config_has_no_name_has_its_reason():
    inputs = keras.Input((8, 8, 3))
    patches = ops.image.extract_patches(inputs, 2)
    outputs = layers.Dense(5)(ops.reshape(patches * ops.relu(patches), (-1, 4 * 4 * 12)))
    description = describe(quantize_model(keras.Model(inputs, outputs), target="onnxruntime"))
    assert description["extract_patches"].code == "float_read_in_integers"


def test_config_of_an_older_version_loads():
    wrapper = quantize_model(small_models.cnn()).get_layer("quant_conv")
    config = wrapper.get_config()
    for key in ("reasons", "bias_input", "normalization"):
        del config[key]
    assert type(wrapper).from_config(config).reasons == {}


def test_reasons_in_a_model_around_the_quantized_one(residual):
    quantized = quantize_model(residual)
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, layers.Dense(2, name="more")(quantized(inputs)))
    found = {layer.name: layer.reason for layer in describe(outer)}
    assert {f"residual/{name}": reason for name, _, _, reason in decided(quantized)}.items() <= found.items()
    assert found["more"] == "left as it is"


def test_reasons_in_a_part_of_the_quantized_model():
    model = quantize_model(small_models.nested(), target="onnxruntime")
    whole = {layer.name: layer.reason for layer in describe(model)}
    part = {layer.name: layer.reason for layer in describe(model.get_layer("backbone"))}
    assert part["quant_relu"] == whole["backbone/quant_relu"]


def test_activation_that_was_split_off_has_a_reason():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="dense")(inputs))
    description = describe(quantize_model(model, target="litert"))
    assert description["dense"].reason == description["dense_activation"].reason == "computed in integers"
