import keras
import numpy as np
import pytest
from keras import layers
from small_models import randomize

from tensorflow_quantization import QuantizationSpec, calibrate, describe, quantize_model
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.targets.reason import ReasonCode

TARGETS = [None, "onnxruntime", "openvino", "tensorrt"]


def model():
    """A convolution, two Dense layers, and one whose 20 inputs are no multiple of 16."""
    inputs = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(32, 3, activation="relu", name="conv")(inputs)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(64, activation="relu", name="wide")(x)
    x = layers.Dense(20, activation="relu", name="narrow")(x)
    return randomize(keras.Model(inputs, layers.Dense(5, name="scores")(x), name="network"))


def spec(name, **entry):
    made = QuantizationSpec()
    made.add(name, **entry)
    return made


def blocks(plan):
    """Path to (bits, block size) of the layers with blocks."""
    return {p.path: (p.weight_scheme.bits, p.weight_scheme.block_size) for p in plan if p.weight_scheme.block_size}


@pytest.mark.parametrize("target", TARGETS)
def test_a_block_size_is_for_products_of_a_matrix(target):
    plan = plan_model(model(), target=target, weight_bits=4, block_size=16)
    partial = {"scores": (4, 16)} if target == "onnxruntime" else {}
    assert blocks(plan) == {"wide": (4, 16), "narrow": (4, 16), **partial}
    assert all(plan[path].inputs == () and plan[path].weights for path in blocks(plan))
    assert plan["conv"].weights and plan["conv"].weight_scheme.bits == 8
    assert plan["wide"].reason.code is ReasonCode.STORED_IN_INTEGERS


@pytest.mark.parametrize("target", ["openvino", None])
def test_a_layer_of_no_whole_blocks_is_quantized_without_and_says_so(target):
    plan = plan_model(model(), target=target, block_size=16)
    assert plan["scores"].weights and plan["scores"].weight_scheme.bits == 8
    assert "no blocks: it sums 20 inputs, no multiple of 16" in plan["scores"].reason.text


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_layer_with_blocks_reads_is_not_quantized_for_it(target):
    quantized = quantize_model(model(), target=target, weight_bits=4, block_size=16)
    assert not quantized.get_layer("quant_wide").activation_quantizers
    assert quantized.get_layer("quant_narrow").input_quantizers == [None]
    text = str(describe(quantized))
    assert "kernel int4 per channel (axis -1) in blocks of 16" in text
    assert "block_size=16; computed in float" in text


def test_a_described_weight_has_a_scale_for_each_block():
    (kernel,) = describe(quantize_model(model(), target="onnxruntime", block_size=16))["wide"].quantizers
    assert (kernel.bits, kernel.block_size, len(kernel.scale)) == (4, 16, 2 * 64)


def test_an_entry_gives_one_layer_blocks():
    plan = plan_model(model(), target="openvino", quantization_spec=spec("wide", weight_bits=8, block_size=32))
    assert blocks(plan) == {"wide": (8, 32)}
    assert plan["narrow"].weight_scheme.bits == 8
    assert plan["wide"].reason.text == "name 'wide' in the spec; computed in float"


def test_weights_in_blocks_have_4_bits_by_default():
    assert blocks(plan_model(model(), quantization_spec=spec("wide", block_size=32))) == {"wide": (4, 32)}
    assert blocks(plan_model(model(), weight_bits=8, quantization_spec=spec("wide", block_size=32))) == {
        "wide": (8, 32)
    }


@pytest.mark.parametrize("entry", [{"block_size": 0}, {"quantize_weight": False}])
def test_an_entry_takes_the_blocks_away(entry):
    plan = plan_model(model(), target="openvino", block_size=16, quantization_spec=spec("wide", **entry))
    assert set(blocks(plan)) == {"narrow"}
    assert plan["wide"].weights == ("block_size" in entry)


def test_an_entry_without_blocks_keeps_those_of_the_model():
    plan = plan_model(model(), target="openvino", block_size=16, quantization_spec=spec("wide", weight_bits=8))
    assert blocks(plan) == {"wide": (8, 16), "narrow": (4, 16)}


def test_an_entry_for_a_class_or_a_pattern_is_for_the_layers_that_can():
    by_class = spec("Dense", is_keras_class=True, block_size=32)
    assert set(blocks(plan_model(model(), target="openvino", quantization_spec=by_class))) == {"wide", "narrow"}
    by_pattern = spec("*", block_size=32)
    assert set(blocks(plan_model(model(), target="openvino", quantization_spec=by_pattern))) == {"wide", "narrow"}


def test_partial_mode_gives_blocks_to_named_layers():
    arguments = {"quantization_mode": "partial", "target": "onnxruntime", "block_size": 16}
    plan = plan_model(model(), quantization_spec=spec("wide"), **arguments)
    assert blocks(plan) == {"wide": (4, 16)}
    assert not plan["narrow"].quantized


def test_a_model_of_weights_alone_needs_no_calibration():
    inputs = keras.Input((32,))
    small = randomize(keras.Model(inputs, layers.Dense(4)(inputs)))
    quantized = quantize_model(small, target="onnxruntime", block_size=16)
    x = np.random.default_rng(0).normal(size=(8, 32)).astype("float32")
    before = quantized.predict(x, verbose=0)
    np.testing.assert_array_equal(calibrate(quantized, x, verbose=0).predict(x, verbose=0), before)


def test_training_changes_weights_in_blocks():
    quantized = quantize_model(model(), target="onnxruntime", block_size=16)
    quantized.compile("sgd", "mse")
    before = keras.ops.convert_to_numpy(quantized.get_layer("quant_wide").layer.kernel)
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype("float32")
    quantized.fit(x, np.ones((8, 5), "float32"), verbose=0)
    assert (keras.ops.convert_to_numpy(quantized.get_layer("quant_wide").layer.kernel) != before).mean() > 0.5


def test_a_saved_model_keeps_its_blocks(tmp_path):
    quantized = quantize_model(model(), target="onnxruntime", block_size=16)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert str(describe(loaded)) == str(describe(quantized))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype("float32")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), quantized.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_size": 24}, "power of two of at least 16"),
        ({"block_size": 8}, "power of two of at least 16"),
        ({"block_size": True}, "power of two of at least 16"),
        ({"block_size": 32, "weight_bits": 3}, "weights in blocks have 4 or 8 bits"),
        ({"block_size": 32, "weight_bits": 8, "target": "tensorrt"}, "weights in blocks have 4 bits"),
        ({"block_size": 32, "target": "litert"}, "block_size is not for target 'litert'"),
        ({"block_size": 32, "target": "tensorrt", "dtype": "float8_e4m3fn"}, "'tensorrt' in FP8"),
        ({"block_size": 512, "target": "openvino"}, "No layer of model 'network' can have weights in blocks of 512"),
        ({"quantization_spec": spec("conv", block_size=32)}, r"Layer 'conv' \(Conv2D\) cannot have block_size=32"),
        ({"quantization_spec": spec("Conv2D", is_keras_class=True, block_size=32)}, "it does not multiply by a matrix"),
        ({"quantization_spec": spec("scores", block_size=16)}, "sums 20 inputs, no multiple of 16"),
        ({"quantization_spec": spec("wide", block_size=16), "target": "litert"}, "not for target 'litert'"),
        ({"quantization_spec": spec("wide", block_size=16, weight_bits=2)}, "Layer 'wide' has 2 bits"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(model(), **arguments)


def test_an_entry_with_a_wrong_size_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="block_size of 'wide' must be a power of two"):
        spec("wide", block_size=48)
