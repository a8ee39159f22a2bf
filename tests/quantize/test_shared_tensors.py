"""An entry speaks of what its layer reads, whoever holds the quantizer."""

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import QuantizationSpec, calibrate, describe, export_onnx, quantize_model
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.targets.reason import ReasonCode

AT_TENSORS = ("onnxruntime", "openvino")
EVERY = (None, "tensorrt", *AT_TENSORS)


def chain():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="middle")(x)
    x = layers.Flatten(name="flatten")(x)
    return small_models.randomize(keras.Model(inputs, layers.Dense(5, name="last")(x)))


def fork():
    """Two convolutions that read the output of a third."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="stem")(inputs)
    left = layers.Conv2D(4, 3, name="left")(x)
    right = layers.Conv2D(4, 3, name="right")(x)
    x = layers.Flatten(name="flatten")(layers.Concatenate(name="join")([left, right]))
    return small_models.randomize(keras.Model(inputs, layers.Dense(5, name="last")(x)))


def spec_of(*names, **settings):
    spec = QuantizationSpec()
    spec.add(list(names), **settings)
    return spec


def bits_read(plan, source, reader):
    """The bits of what `reader` reads, which `source` computes; `None`: it reads floats."""
    if plan[reader].inputs:
        return plan[reader].activation_scheme.bits
    held = plan.layers.get(source)
    return held.output_scheme.bits if held is not None and held.output else None


@pytest.mark.parametrize("target", EVERY)
def test_first_and_last_layer_have_8_bits_and_the_rest_4(target):
    spec = spec_of("first", "last", weight_bits=8, activation_bits=8)
    plan = plan_model(chain(), quantization_spec=spec, target=target, weight_bits=4, activation_bits=4)
    assert [plan[name].weight_scheme.bits for name in ("first", "middle", "last")] == [8, 4, 8]
    assert bits_read(plan, "image", "first") == 8
    assert bits_read(plan, "first", "middle") == 4
    assert bits_read(plan, "middle", "last") == 8


def test_first_and_last_layer_at_8_bits_computes_the_same_in_onnxruntime(tmp_path, images):
    spec = spec_of("first", "last", weight_bits=8, activation_bits=8)
    model = quantize_model(chain(), target="onnxruntime", weight_bits=4, activation_bits=4, quantization_spec=spec)
    model = calibrate(model, images[0], verbose=0)
    export_onnx(model, tmp_path / "m.onnx", verify_with=images[0])
    steps = np.unique(keras.ops.convert_to_numpy(model.get_layer("quant_middle").output_quantizer(images[0] * 10.0)))
    assert 16 < len(steps) <= 256


@pytest.mark.parametrize("target", EVERY)
def test_layer_that_shall_read_floats_does(target):
    plan = plan_model(chain(), quantization_spec=spec_of("middle", quantize_input=False), target=target)
    assert bits_read(plan, "first", "middle") is None
    assert plan["middle"].weights
    assert bits_read(plan, "image", "first") == bits_read(plan, "middle", "last") == 8


@pytest.mark.parametrize("target", AT_TENSORS)
def test_float_reader_leaves_the_other_reader_its_integers(target, tmp_path, images):
    spec = spec_of("left", quantize_input=False, quantize_weight=False)
    plan = plan_model(fork(), quantization_spec=spec, target=target)
    assert not plan["stem"].output
    assert plan["right"].inputs == (0,)
    assert plan["stem"].reason.text.endswith("its output stays float for left (name 'left' in the spec)")
    weight_bits = 7  # exact on every processor
    model = quantize_model(fork(), quantization_spec=spec, target=target, weight_bits=weight_bits)
    model = calibrate(model, images[0], verbose=0)
    export_onnx(model, tmp_path / "m.onnx", verify_with=images[0], verify_runtime=target)


@pytest.mark.parametrize("target", AT_TENSORS)
def test_float_reader_behind_moved_data(target):
    plan = plan_model(chain(), quantization_spec=spec_of("last", quantize_input=False), target=target)
    assert bits_read(plan, "middle", "last") is None
    assert str(plan["flatten"].reason) == "moves floats"


@pytest.mark.parametrize("target", AT_TENSORS)
def test_largest_number_of_bits_of_two_readers_counts_and_is_said(target):
    with pytest.warns(UserWarning, match=r"Layer 'left' \(name 'left' in the spec\) reads 8 bits, not 4.*with right"):
        plan = plan_model(fork(), quantization_spec=spec_of("left", activation_bits=4), target=target)
    assert bits_read(plan, "stem", "left") == 8


@pytest.mark.parametrize("target", AT_TENSORS)
def test_more_bits_for_one_reader_are_on_the_reason_of_the_shared_quantizer(target):
    plan = plan_model(fork(), quantization_spec=spec_of("left", activation_bits=8), target=target, activation_bits=4)
    assert bits_read(plan, "stem", "right") == 8
    assert plan["stem"].reason.text.endswith("8 bits for left (name 'left' in the spec)")


def test_output_has_the_bits_of_who_asks_for_it():
    def output_bits(**settings):
        spec = spec_of("first", activation_bits=6, **settings)
        return plan_model(chain(), quantization_spec=spec, target="onnxruntime")["first"].output_scheme.bits

    assert output_bits() == 8  # `middle` reads it
    assert output_bits(quantize_output=True) == 6


def test_last_output_that_nothing_reads_has_the_bits_of_its_layer():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="conv")(inputs))
    plan = plan_model(model, quantization_spec=spec_of("conv", activation_bits=6), target="onnxruntime")
    assert plan["conv"].output_scheme.bits == 6


@pytest.mark.parametrize("target", EVERY)
def test_model_input_is_a_valid_entry(target):
    plan = plan_model(fork(), quantization_spec=spec_of("image", activation_bits=6), target=target)
    assert plan["image"].output_scheme.bits == 6
    assert not plan["stem"].inputs
    assert plan["image"].reason.text == "name 'image' in the spec"


@pytest.mark.parametrize("target", EVERY)
def test_model_input_stays_float_on_request(target):
    plan = plan_model(chain(), quantization_spec=spec_of("image", quantize_input=False), target=target)
    assert bits_read(plan, "image", "first") is None
    assert bits_read(plan, "first", "middle") == 8


def test_model_input_alone_in_partial_mode(images):
    model = quantize_model(chain(), "partial", spec_of("image", activation_bits=6))
    assert [layer.name for layer in describe(model) if layer.quantized] == ["quant_image"]
    (quantizer,) = describe(calibrate(model, images[0], verbose=0))["image"].quantizers
    assert quantizer.bits == 6


def test_model_input_of_integers_has_no_quantizer_and_says_so():
    ids = keras.Input((3,), dtype="int32", name="ids")
    model = keras.Model(ids, layers.Embedding(5, 2)(ids))
    with pytest.warns(UserWarning, match="Input 'ids' has dtype int32"):
        plan = plan_model(model, quantization_spec=spec_of("ids"))
    assert not plan.quantizes


@pytest.mark.parametrize("target", AT_TENSORS)
def test_entry_whose_input_is_quantized_at_its_source_is_not_called_switched_off(target):
    reason = plan_model(chain(), quantization_spec=spec_of("flatten"), target=target)["flatten"].reason
    assert reason.code is ReasonCode.SHARES_QUANTIZER


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"weight_bits": 4}, {"first", "middle", "last"}),
        ({"quantization_spec": spec_of("last", weight_bits=4)}, {"last"}),
        ({"quantization_spec": spec_of("last", activation_bits=6)}, {"middle", "last"}),
    ],
)
def test_target_refuses_bits_that_it_cannot_compute_with(settings, named):
    with pytest.raises(ValueError, match="'litert' computes in 8 bits only") as error:
        quantize_model(chain(), target="litert", **settings)
    rows = str(error.value).splitlines()[1:]
    assert {row.split(":")[0].strip() for row in rows} == named


@pytest.mark.parametrize("target", [*AT_TENSORS, "litert"])
def test_concatenation_that_is_named_has_one_scale_for_all_its_inputs(target):
    inputs = keras.Input((4, 4))
    x = [layers.ELU(name=name)(inputs) for name in ("left", "right")]
    model = keras.Model(inputs, layers.ELU()(layers.Concatenate(name="join")(x)))
    plan = plan_model(model, quantization_spec=spec_of("Concatenate", is_keras_class=True), target=target)
    assert (plan["join"].inputs, plan["join"].output) == ((), True)


def test_bits_of_a_concatenation_are_those_of_its_one_scale():
    spec = spec_of("join", activation_bits=8)
    plan = plan_model(fork(), quantization_spec=spec, target="onnxruntime", activation_bits=4)
    assert plan["join"].output_scheme.bits == 8


@pytest.mark.parametrize("target", EVERY)
@pytest.mark.parametrize("square", [lambda x: x * x, lambda x: ops.matmul(x, x)], ids=["multiply", "matmul"])
def test_an_operation_reads_a_tensor_twice(square, target, tmp_path):
    # Two quantizers of the same name were refused by Keras.
    inputs = keras.Input((4, 4))
    x = square(layers.Dense(4)(inputs))
    model = small_models.randomize(keras.Model(inputs, layers.Dense(3)(x)))
    x = np.random.default_rng(0).normal(size=(4, 4, 4)).astype("float32")
    quantized = calibrate(quantize_model(model, target=target, weight_bits=EXACT_WEIGHT_BITS), x, verbose=0)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    small_models.assert_same_arrays(loaded(x), quantized(x))
    export_onnx(loaded, tmp_path / "model.onnx", verify_with=x)
