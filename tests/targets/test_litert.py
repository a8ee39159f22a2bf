from dataclasses import replace

import keras
import numpy as np
import pytest
import small_models
from keras import layers

from tensorflow_quantization import QuantizationSpec, calibrate, quantize_model
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.targets import TARGETS


def quantized(model, **kwargs):
    return quantize_model(model, target="litert", **kwargs)


def planned(model, **kwargs):
    return plan_model(model, target="litert", **kwargs)


def outputs(model):
    """The inputs, layers and operations whose output gets a quantizer."""
    return [layer.path for layer in planned(model) if layer.output]


def functional(*steps, shape=(8, 8, 3)):
    """A model of layers or functions, one after the other."""
    inputs = x = keras.Input(shape, name="image")
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def quantizers(model):
    return [layer for layer in sublayers(model) if isinstance(layer, ActivationQuantizer)]


def test_integers_are_those_of_the_specification():
    target = TARGETS["litert"]
    assert (target.activations.qmin, target.activations.qmax, target.activations.symmetric) == (-128, 127, False)
    assert (target.weights.qmin, target.weights.qmax, target.weights.symmetric) == (-127, 127, True)


def test_every_kernel_has_its_inputs_and_its_output_quantized(cnn):
    # The ReLU is part of the convolution, and pooling keeps the integers.
    assert outputs(cnn) == ["image", "relu", "gap", "dense"]


def test_pooling_and_concatenation_take_in_no_activation():
    inputs = keras.Input((8, 8, 3), name="image")
    pooled = layers.ReLU(name="relu")(layers.GlobalAveragePooling2D(name="gap")(inputs))
    joined = layers.ReLU(name="last")(
        layers.Concatenate(name="concat")([pooled, layers.Dense(4, name="dense")(pooled)])
    )
    assert outputs(keras.Model(inputs, joined)) == ["image", "gap", "relu", "concat", "last"]


def test_average_pooling_has_one_quantizer_for_what_it_reads_and_writes():
    model = functional(layers.Conv2D(4, 3, name="conv"), layers.AveragePooling2D(2, name="pool"))
    assert outputs(model) == ["image", "pool"]
    wrapper = quantized(model).get_layer("quant_pool")
    assert wrapper.output_quantizer.range is wrapper.input_quantizers[0].range


def test_average_pooling_beside_another_reader_has_the_range_of_both(images):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    pooled = layers.AveragePooling2D(1, name="pool")(x)
    model = small_models.randomize(keras.Model(inputs, layers.Add(name="add")([x, pooled])))
    assert outputs(model) == ["image", "conv", "pool", "add"]
    model = calibrate(quantized(model), images[0], verbose=0)
    pool, conv = model.get_layer("quant_pool"), model.get_layer("quant_conv")
    assert pool.input_quantizers[0].parameters() == conv.output_quantizer.parameters()


def test_switched_off_pooling_reads_floats():
    spec = QuantizationSpec()
    spec.add("pool", quantize_input=False)
    model = functional(layers.Conv2D(4, 3, name="conv"), layers.AveragePooling2D(2, name="pool"))
    plan = planned(model, quantization_spec=spec)
    assert [layer.path for layer in plan if layer.output] == ["image"]
    assert plan["conv"].reason.text.endswith("its output stays float for pool (name 'pool' in the spec)")


def test_spec_for_weights_keeps_what_the_target_asks_of_the_pooling():
    spec = QuantizationSpec()
    spec.add("pool")
    model = functional(layers.Conv2D(4, 3, name="conv"), layers.AveragePooling2D(2, name="pool"))
    assert quantized(model, quantization_spec=spec).get_layer("quant_pool").one_scale


def test_layer_without_an_integer_kernel_says_so_and_its_readers_are_integer():
    model = functional(
        layers.Conv2D(4, 3, name="conv"), layers.LayerNormalization(name="norm"), layers.Dense(3, name="dense")
    )
    assert outputs(model) == ["image", "conv", "norm", "dense"]
    plan = planned(model)
    why = "read by dense; the layer itself is computed in float: LiteRT has no kernel"
    assert plan["norm"].reason.text.startswith(why)


def test_layers_without_quantizers_say_why(cnn):
    plan = planned(cnn)
    assert {path: plan[path].reason.text for path in ("bn", "pool")} == {
        "bn": "folded into conv",
        "pool": "keeps the integers of its input",
    }
    plan = planned(functional(layers.ELU(name="elu")))
    assert plan["elu"].reason.text == "not known to run in integers"
    plan = plan_model(small_models.residual(), target="onnxruntime")
    assert plan["add"].reason.text == "shares the quantizers of its inputs"


def test_activation_within_a_kernel_says_whose():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(inputs))
    relu = layers.ReLU(name="relu")(x)
    model = keras.Model(inputs, layers.Concatenate(name="concat")([relu, layers.Conv2D(4, 3, name="last")(inputs)]))
    assert outputs(model) == ["image", "concat"]
    assert planned(model)["relu"].reason.text == "part of the kernel of conv"


def test_demanded_scale_stays_in_front_of_a_concatenation():
    inputs = keras.Input((4,), name="image")
    parts = [layers.Dense(4, activation=name, name=name)(inputs) for name in ("sigmoid", "relu")]
    assert outputs(keras.Model(inputs, layers.Concatenate(name="concat")(parts))) == ["image", "sigmoid", "concat"]


def test_residual_add_takes_in_its_relu(residual):
    assert outputs(residual) == ["image", "stem", "bn", "relu", "gap", "dense"]


def test_batch_normalization_is_a_kernel_only_where_no_convolution_takes_it_in():
    model = functional(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="folded"),
        layers.Activation("relu", name="relu"),
        layers.BatchNormalization(name="alone"),
        layers.Activation("relu", name="last"),
    )
    assert outputs(model) == ["image", "relu", "last"]
    assert [layer.path for layer in planned(model) if layer.weights] == ["conv"]


def test_input_preprocessing_is_computed_in_integers():
    model = functional(layers.Rescaling(1 / 255, name="rescaling"), layers.Conv2D(4, 3, name="conv"))
    assert outputs(model) == ["image", "rescaling", "conv"]


def test_preprocessing_in_several_layers_is_one_kernel():
    steps = [layers.Rescaling(1 / 255, name="rescaling"), layers.Normalization(mean=0.4, variance=0.1, name="normal")]
    model = functional(*steps, layers.Conv2D(4, 3, name="conv"))
    assert outputs(model) == ["image", "normal", "conv"]


def test_arithmetic_with_numbers_is_computed_in_integers():
    model = functional(lambda x: x * 2.0, lambda x: x - 1.0, layers.Conv2D(4, 3, name="conv"))
    assert outputs(model) == ["image", "multiply", "subtract", "conv"]


def test_activations_that_no_kernel_takes_in_are_kernels():
    model = functional(layers.Conv2D(4, 3, name="conv"), layers.LeakyReLU(name="leaky"), layers.Softmax(name="soft"))
    assert outputs(model) == ["image", "conv", "leaky", "soft"]


def test_concatenation_shares_its_scale_with_its_parts():
    inputs = keras.Input((8, 8, 3), name="image")
    parts = [layers.Conv2D(4, 3, activation="relu", name=f"conv_{i}")(inputs) for i in range(2)]
    model = keras.Model(inputs, layers.Concatenate(name="concat")(parts))
    assert outputs(model) == ["image", "concat"]


@pytest.mark.parametrize(
    ("activation", "scale", "zero_point"),
    [("softmax", 1 / 256, -128), ("sigmoid", 1 / 256, -128), ("tanh", 1 / 128, 0)],
)
@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_scale_that_the_runtime_demands(activation, scale, zero_point, ranges):
    model = small_models.randomize(functional(layers.Dense(4, activation=activation), shape=(3,)))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    model = quantized(model, ranges=ranges)
    calibrate(model, x, verbose=0)
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((8, 4)), verbose=0)
    last = quantizers(model)[-1]
    assert last.parameters() == (np.float32(scale), zero_point)
    multiples = model.predict(x, verbose=0) / np.float32(scale)
    np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-4)


def test_silu_has_the_gate_of_a_sigmoid():
    model = quantized(functional(layers.Conv2D(4, 3), layers.Activation("silu", name="silu")))
    wrapper = model.get_layer("quant_silu")
    assert wrapper.gate_quantizer.parameters() == (np.float32(1 / 256), -128)
    assert wrapper.output_quantizer.scheme.fixed is None


def test_demanded_scale_survives_saving(tmp_path):
    model = quantized(functional(layers.Dense(4, activation="tanh"), shape=(3,)))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert [q.scheme for q in quantizers(loaded)] == [q.scheme for q in quantizers(model)]


def test_demanded_scale_is_of_8_bits_only():
    any_bits = replace(TARGETS["litert"], bits=None)
    model = functional(layers.Dense(4, activation="tanh"), shape=(3,))
    model = quantize_model(model, target=any_bits, input_bits=4)
    assert [q.scheme.fixed for q in quantizers(model)] == [None] * 3


@pytest.mark.parametrize("layer", [layers.Maximum, layers.Minimum])
def test_maximum_shares_its_scale_with_its_inputs(layer):
    inputs = keras.Input((8, 8, 3), name="image")
    parts = [layers.Conv2D(4, 3, name=f"conv_{i}")(inputs) for i in range(2)]
    assert outputs(keras.Model(inputs, layer(name="selection")(parts))) == ["image", "selection"]


def test_average_of_three_stays_float():
    inputs = keras.Input((8, 8, 3), name="image")
    parts = [layers.Conv2D(4, 3, name=f"conv_{i}")(inputs) for i in range(3)]
    assert "mean" in outputs(keras.Model(inputs, layers.Average(name="mean")(parts[:2])))
    assert "mean" not in outputs(keras.Model(inputs, layers.Average(name="mean")(parts)))


@pytest.mark.parametrize("target", ["litert", "onnxruntime"])
@pytest.mark.parametrize("layer", [layers.Add, layers.Multiply])
def test_more_than_two_inputs_are_added_and_multiplied_in_float_and_the_plan_says_so(target, layer):
    inputs = keras.Input((8, 8, 3), name="image")
    parts = [layers.Conv2D(4, 3, name=f"conv_{i}")(inputs) for i in range(3)]
    reasons = {}
    for count in (2, 3):
        model = keras.Model(inputs, layers.Conv2D(3, 3)(layer(name="joined")(parts[:count])))
        plan = plan_model(model, target=target)
        assert all(plan[f"conv_{i}"].output for i in range(count))  # integers before and after
        reasons[count] = plan["joined"].reason
    assert [reason.code for reason in reasons.values()] == ["written_in_integers", "float_read_in_integers"]
    assert str(reasons[3]).endswith("the layer itself is computed in float: its kernel takes two inputs")


def test_quotient_by_a_constant_is_computed_in_integers():
    model = functional(lambda x: x / 127.5, lambda x: x - 1.0)
    assert outputs(model) == ["image", "true_divide", "subtract"]
    assert outputs(functional(lambda x: 1.0 / x)) == []
    assert outputs(functional(lambda x: x / (x + 1.0))) == ["image", "add"]


def test_hard_sigmoid_has_one_step_of_255():
    model = quantized(functional(layers.Dense(4), layers.Activation("hard_sigmoid"), shape=(3,)))
    assert quantizers(model)[-1].parameters() == (np.float32(1 / 255), -128)


def test_image_of_integers_is_rescaled_in_float():
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    plan = planned(keras.Model(inputs, layers.Conv2D(4, 3, name="conv")(x)))
    assert plan["rescaling"].output
    assert plan["rescaling"].reason.text.endswith("the layer itself is computed in float: its input is uint8")
