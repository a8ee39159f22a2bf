import json

import keras
import numpy as np
import pytest
import small_models
from keras import layers
from tensorflow_quantization.custom_qdq_cases import ResNetV1QDQCase

from tensorflow_quantization import QuantizationSpec, calibrate, describe, quantize_model


def quantizers(model, name):
    return [str(q) for q in describe(model)[name].quantizers]


def test_every_layer_is_listed_in_order_by_its_path_and_own_class():
    description = describe(quantize_model(small_models.nested()))
    assert [(layer.name, layer.class_name, layer.quantized) for layer in description] == [
        ("backbone/quant_conv", "Conv2D", True),
        ("backbone/bn", "BatchNormalization", False),
        ("backbone/relu", "ReLU", False),
        ("quant_gap", "GlobalAveragePooling2D", True),
        ("quant_head", "Dense", True),
    ]


def test_bits_axis_and_state_of_each_quantizer(cnn, images):
    spec = QuantizationSpec()
    spec.add("conv", weight_bits=4)
    q_model = quantize_model(cnn, quantization_spec=spec)
    assert quantizers(q_model, "quant_conv") == [
        "input int8 [-6, 6], never saw data",
        "kernel int4 per channel (axis -1)",
    ]
    calibrate(q_model, images[0], method="minmax", verbose=0)
    low, high = images[0].min(), images[0].max()
    assert quantizers(q_model, "quant_conv")[0] == f"input int8 [{low:.4g}, {high:.4g}], frozen"
    (gap,) = describe(q_model)["quant_gap"].quantizers
    assert gap.seen
    assert gap.frozen
    assert gap.zero_point == 0
    assert gap.scale == pytest.approx(max(map(abs, gap.range)) / 127)


def test_axes_of_a_depthwise_kernel():
    inputs = keras.Input((8, 8, 3))
    q_model = quantize_model(keras.Model(inputs, layers.DepthwiseConv2D(3, name="depthwise")(inputs)))
    assert quantizers(q_model, "quant_depthwise")[1] == "kernel int8 per channel (axis -2, -1)"


def test_quantizers_within_a_layer_are_named():
    inputs = keras.Input((8, 8, 3))
    x = layers.Activation("silu", name="silu")(layers.SeparableConv2D(4, 3, name="separable")(inputs))
    description = describe(quantize_model(keras.Model(inputs, x), target="litert"))
    named = {layer.name: [q.what for q in layer.quantizers] for layer in description}
    assert named["quant_separable"] == ["depthwise_kernel", "pointwise_kernel", "inner", "output"]
    assert named["quant_silu"] == ["gate", "output"]


def test_inputs_of_a_layer_with_several_are_numbered(residual):
    q_model = quantize_model(residual, custom_qdq_cases=[ResNetV1QDQCase()])
    assert quantizers(q_model, "quant_add") == ["input 0 int8 [-6, 6], never saw data"]


def test_reasons_are_those_of_the_call(residual):
    spec = QuantizationSpec()
    spec.add("dense", quantize_weight=False)
    spec.add("gap", quantize_input=False)
    q_model = quantize_model(residual, quantization_spec=spec, custom_qdq_cases=[ResNetV1QDQCase()])
    reasons = {layer.name: layer.reason for layer in describe(q_model)}
    assert reasons == {
        "quant_stem": "default",
        "quant_conv": "default",
        "bn": "folded into conv",
        "quant_add": "ResNetV1QDQCase",
        "relu": "no quantize wrapper for ReLU",
        "gap": "switched off (name 'gap' in the spec)",
        "quant_dense": "name 'dense' in the spec",
    }


def test_loaded_model_has_the_same_description(residual, tmp_path):
    q_model = quantize_model(residual, custom_qdq_cases=[ResNetV1QDQCase()])
    q_model.save(tmp_path / "model.keras")
    loaded = describe(keras.models.load_model(tmp_path / "model.keras"))
    assert loaded.to_dict() == describe(q_model).to_dict()
    assert str(loaded) == str(describe(q_model))


@pytest.mark.parametrize("name", ["conv", "quant_conv"])
def test_layer_is_found_by_its_name_before_and_after_quantization(name):
    description = describe(quantize_model(small_models.nested()))
    assert description[f"backbone/{name}"].name == "backbone/quant_conv"
    assert description["backbone/quant_relu"].name == "backbone/relu"


def test_float_model_has_nothing_quantized(cnn):
    description = describe(cnn)
    assert not any(layer.quantized for layer in description)
    assert description["conv"].reason == "float; quantize_model quantizes it"


def test_what_names_an_output_is_not_listed():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3, name="class")(inputs), layers.Dense(2, name="box")(inputs)])
    q_model = quantize_model(model)
    assert {layer.name for layer in q_model.layers[1:]} == {"quant_class", "quant_box", "class", "box"}
    assert {layer.name for layer in describe(q_model)} == {"quant_class", "quant_box"}


def test_shared_layers_are_listed_once():
    description = describe(quantize_model(small_models.siamese()))
    assert [layer.name for layer in description].count("encoder/quant_conv") == 1


def test_dict_is_ready_for_json(residual):
    q_model = quantize_model(residual)
    found = json.loads(json.dumps(describe(q_model).to_dict()))
    assert found["model"] == "residual"
    assert [layer["name"] for layer in found["layers"]] == [layer.name for layer in describe(q_model)]
    assert [layer["code"] for layer in found["layers"][:3]] == ["default", "default", "fused"]
    assert found["layers"][2]["reason"] == "folded into conv"
    (activation, weight) = found["layers"][0]["quantizers"]
    assert activation["range"] == [-6.0, 6.0]
    assert activation["what"] == "input"
    assert weight["what"] == "kernel"
    assert weight["axis"] == [-1]


def test_markdown_has_a_row_a_layer(residual):
    lines = describe(quantize_model(residual)).to_markdown().splitlines()
    assert lines[0] == "| layer | class | quantized | why |"
    assert len(lines) == 2 + 7
    assert "input int8 [-6, 6], never saw data<br>kernel int8 per channel (axis -1)" in lines[2]


def test_text_has_a_line_a_quantizer(residual):
    text = str(describe(quantize_model(residual))).splitlines()
    assert text[0] == "Model 'residual': 4 of 7 layers quantized"
    assert text[1].split() == ["layer", "class", "quantized", "why"]
    assert text[3].split()[:2] == ["quant_stem", "Conv2D"]
    assert text[4].split() == ["kernel", "int8", "per", "channel", "(axis", "-1)"]
    assert all(line == line.rstrip() for line in text)


def test_every_model_can_be_described():
    for build in small_models.BUILDERS.values():
        assert "layers quantized" in repr(describe(quantize_model(build())))


def test_unknown_layer_is_refused(cnn):
    with pytest.raises(KeyError, match="conv_1"):
        describe(cnn)["conv_1"]


@pytest.mark.parametrize("thing", [None, layers.Dense(2)])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        describe(thing)


def test_learned_range_is_scale_times_levels_and_called_learned(cnn, images):
    q_model = calibrate(quantize_model(cnn, ranges="learned"), images[0], verbose=0)
    quantizer = q_model.get_layer("quant_gap").input_quantizers[0]
    quantizer.step_change.assign(0.5)  # as training does
    (gap,) = describe(q_model)["gap"].quantizers
    assert gap.scale == pytest.approx(float(quantizer.parameters()[0]))
    assert gap.range == pytest.approx((-127 * gap.scale, 127 * gap.scale))
    assert gap.learned
    assert str(gap).startswith(f"input int8 [{-127 * gap.scale:.4g}, {127 * gap.scale:.4g}], learned")


def test_range_that_the_runtime_demands_is_not_the_range_before_calibration():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, activation="tanh", name="dense")(inputs))
    output = describe(quantize_model(model, target="litert"))["dense_activation"].quantizers[-1]
    assert output.range == (-1.0, 127 / 128)


def test_weights_have_a_scale_for_each_channel(cnn):
    kernel = describe(quantize_model(cnn))["conv"].quantizers[1]
    expected = np.abs(keras.ops.convert_to_numpy(cnn.get_layer("conv").kernel)).max((0, 1, 2)) / 127
    np.testing.assert_allclose(kernel.scale, expected, rtol=1e-6)


@pytest.mark.parametrize("target", ["onnxruntime", "litert"])
def test_quantizer_after_a_float_layer_is_not_called_its_output(target):
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, layers.Dense(3, name="dense")(layers.LayerNormalization(name="float")(inputs)))
    layer = describe(quantize_model(model, target=target))["float"]
    assert [q.what for q in layer.quantizers] == ["after it"]
    assert layer.code == "float_read_in_integers"
    assert layer.reason.startswith("read by dense; the layer itself is ")


def test_notebook_shows_a_row_a_quantizer(cnn):
    description = describe(quantize_model(cnn))
    html = description._repr_html_()
    assert html.startswith("<p>Model &#x27;cnn&#x27;: ") and "<td>quant_conv</td>" in html
    assert html.count("<tr>") == 1 + sum(max(1, len(layer.quantizers)) for layer in description)
