import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import assert_same_arrays

from tensorflow_quantization import (
    BaseQuantizeWrapper,
    calibrate,
    export_onnx,
    quantize_model,
)
from tensorflow_quantization.model.keras_internals import keras_mask
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.wrappers.layers import (
    AddQuantizeWrapper,
    AveragePooling2DQuantizeWrapper,
    BatchNormalizationQuantizeWrapper,
    Conv2DQuantizeWrapper,
    DenseQuantizeWrapper,
)

pytestmark = pytest.mark.usefixtures("own_wrappers")


def dense_on(x, **arguments):
    """A wrapped Dense that has seen `x`."""
    wrapper = DenseQuantizeWrapper(layers.Dense(3, name="dense"), **arguments)
    wrapper(x)
    return wrapper


def rounded(x, scale, limit=127):
    return np.clip(np.rint(x / scale), -limit, limit) * scale


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


# What a wrapper computes


def test_inputs_and_kernel_are_quantized_and_the_bias_is_not(x):
    wrapper = dense_on(x)
    wrapper.layer.bias.assign([0.123456, 1.0, -1.0])
    kernel = ops.convert_to_numpy(wrapper.layer.kernel)
    expected = rounded(x, 6 / 127) @ rounded(kernel, np.abs(kernel).max(axis=0) / 127)
    expected += ops.convert_to_numpy(wrapper.layer.bias)
    np.testing.assert_allclose(ops.convert_to_numpy(wrapper(x)), expected, rtol=1e-4, atol=1e-5)


def test_only_the_inputs(x):
    wrapper = dense_on(x, quantize_weights=False)
    expected = rounded(x, 6 / 127) @ ops.convert_to_numpy(wrapper.layer.kernel)
    np.testing.assert_allclose(ops.convert_to_numpy(wrapper(x)), expected, rtol=1e-4, atol=1e-5)
    assert wrapper.weight_quantizers == {}


def test_only_the_kernel(x):
    wrapper = dense_on(x, quantize_inputs=False)
    kernel = ops.convert_to_numpy(wrapper.layer.kernel)
    expected = x @ rounded(kernel, np.abs(kernel).max(axis=0) / 127)
    np.testing.assert_allclose(ops.convert_to_numpy(wrapper(x)), expected, rtol=1e-4, atol=1e-5)
    assert wrapper.activation_quantizers == []


def test_nothing_at_all_is_the_layer_itself(x):
    wrapper = dense_on(x, quantize_inputs=False, quantize_weights=False)
    assert_same_arrays(wrapper(x), wrapper.layer(x))


def test_output_is_quantized_if_a_scheme_is_given(x):
    wrapper = dense_on(x, quantize_inputs=False, quantize_weights=False, output_scheme=QuantizationScheme())
    expected = rounded(ops.convert_to_numpy(wrapper.layer(x)), 6 / 127)
    np.testing.assert_allclose(ops.convert_to_numpy(wrapper(x)), expected, rtol=1e-5, atol=1e-6)
    assert wrapper.activation_quantizers == [wrapper.output_quantizer]


def pooling(**arguments):
    return AveragePooling2DQuantizeWrapper(layers.AveragePooling2D(2), one_scale=True, **arguments)


def test_output_at_the_scale_of_the_input():
    x = np.random.default_rng(0).uniform(-1, 2, (2, 4, 4, 3)).astype("float32")
    wrapper = pooling()
    wrapper(x, training=True)
    scale = np.abs(x).max() / 127
    mean = rounded(x, scale).reshape(2, 2, 2, 2, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(ops.convert_to_numpy(wrapper(x)), rounded(mean, scale), atol=1e-5)
    assert wrapper.output_quantizer.parameters() == wrapper.input_quantizers[0].parameters()


@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_one_scale_survives_training_saving_and_cloning(tmp_path, ranges):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layers.Dense(2)(pooling(ranges=ranges)(inputs)))
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype("float32")
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((8, 2, 2, 2)), verbose=0)
    model.save(tmp_path / "m.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for copy in (keras.models.load_model(tmp_path / "m.keras"), clone):
        assert_same_arrays(copy.predict(x, verbose=0), model.predict(x, verbose=0))
        wrapper = copy.layers[1]
        assert wrapper.output_quantizer.seen
        assert wrapper.output_quantizer.range is wrapper.input_quantizers[0].range


@pytest.mark.parametrize(
    ("wrapper", "shape"),
    [
        (lambda: pooling(quantize_inputs=False), (None, 4, 4, 3)),
        (lambda: AddQuantizeWrapper(layers.Add(name="sum"), one_scale=True), [(None, 3), (None, 3)]),
    ],
)
def test_one_scale_is_for_one_quantized_input(wrapper, shape):
    with pytest.raises(ValueError, match="one_scale is for layers with one input"):
        wrapper().build(shape)


def test_schemes_reach_their_quantizers(x):
    wrapper = dense_on(
        x,
        input_scheme=QuantizationScheme(bits=4, symmetric=False),
        weight_scheme=QuantizationScheme(bits=3, axis=0),
        output_scheme=QuantizationScheme(bits=5, signed=False),
    )
    assert wrapper.input_quantizers[0].scheme == QuantizationScheme(bits=4, symmetric=False)
    assert wrapper.weight_quantizers["kernel"].scheme == QuantizationScheme(bits=3, axis=-1)
    assert wrapper.output_quantizer.scheme == QuantizationScheme(bits=5, signed=False)


def test_kernel_itself_is_not_changed(x):
    wrapper = dense_on(x)
    before = ops.convert_to_numpy(wrapper.layer.kernel).copy()
    wrapper(x, training=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(wrapper.layer.kernel), before)


@pytest.mark.parametrize(
    ("arguments", "quantized"),
    [
        ({}, [0, 1, 2]),
        ({"quantize_inputs": False}, []),
        ({"quantize_specific_input_indices": [1]}, [1]),
        ({"quantize_specific_input_indices": [0, 2]}, [0, 2]),
        ({"quantize_specific_input_indices": [1], "quantize_inputs": False}, [1]),
    ],
)
@pytest.mark.parametrize("structure", [list, tuple])
def test_chosen_inputs_of_a_layer_with_several(x, structure, arguments, quantized):
    wrapper = AddQuantizeWrapper(layers.Add(), **arguments)
    inputs = structure([x, 2 * x, x - 1])
    total = ops.convert_to_numpy(wrapper(inputs))
    assert [i for i, q in enumerate(wrapper.input_quantizers) if q is not None] == quantized
    expected = sum(rounded(v, 6 / 127) if i in quantized else v for i, v in enumerate(inputs))
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


# What it leaves as it was


def test_moving_statistics_of_a_wrapped_normalization_follow(x):
    wrapper = BatchNormalizationQuantizeWrapper(layers.BatchNormalization(momentum=0.5, name="bn"))
    plain = layers.BatchNormalization(momentum=0.5)
    wrapper(x + 1, training=True)
    seen = wrapper.input_quantizers[0](x + 1)
    plain(seen, training=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(wrapper.layer.moving_mean), ops.convert_to_numpy(plain.moving_mean), rtol=1e-4, atol=1e-5
    )
    assert np.abs(ops.convert_to_numpy(wrapper.layer.moving_mean)).max() > 0.1


def test_state_that_a_layer_with_a_kernel_assigns_is_kept(x):
    class CountingDense(layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.calls = self.add_weight(initializer="zeros", trainable=False)

        def call(self, inputs):
            self.calls.assign(self.calls + 1)
            return super().call(inputs)

    wrapper = DenseQuantizeWrapper(CountingDense(2))
    for _ in range(3):
        wrapper(x)
    assert float(ops.convert_to_numpy(wrapper.layer.calls)) == 3


def test_variables_of_the_same_name_are_told_apart(x):
    class TwoScales(layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.scales = [self.add_weight(name="scale", initializer=i) for i in ("zeros", "ones")]

        def call(self, inputs):
            return super().call(inputs) * self.scales[0] + self.scales[1]

    wrapper = DenseQuantizeWrapper(TwoScales(2))
    assert ops.convert_to_numpy(wrapper(x)).tolist() == [[1.0, 1.0]] * len(x)


def test_losses_of_the_layer_are_kept(x):
    wrapper = DenseQuantizeWrapper(layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1"))
    y = ops.convert_to_numpy(wrapper(x))
    kernel = ops.convert_to_numpy(wrapper.layer.kernel)
    losses = sorted(float(ops.convert_to_numpy(loss)) for loss in wrapper.losses)
    np.testing.assert_allclose(losses, sorted([0.01 * np.sum(kernel**2), 0.01 * np.sum(np.abs(y)) / len(x)]), rtol=1e-5)


def test_mask_passes_through():
    wrapper = DenseQuantizeWrapper(layers.Dense(3))
    inputs = keras.Input((5, 2))
    outputs = wrapper(layers.Masking()(inputs))
    assert keras_mask(outputs) is not None


def test_shape_and_dtype_are_those_of_the_layer():
    wrapper = Conv2DQuantizeWrapper(layers.Conv2D(4, 3, strides=2, dtype="mixed_bfloat16"))
    y = wrapper(keras.Input((9, 9, 3)))
    assert y.shape == (None, 4, 4, 4)
    assert y.dtype == "bfloat16"
    assert wrapper.compute_output_shape((None, 9, 9, 3)) == (None, 4, 4, 4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_quantizes_in_float32_and_computes_in_half(x, policy):
    wrapper = DenseQuantizeWrapper(layers.Dense(3, dtype=policy))
    y = wrapper(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(v.dtype) for v in wrapper.variables} == {"float32"}


def test_trainable_is_that_of_the_layer_and_reaches_the_quantizers(x):
    layer = layers.Dense(3)
    layer.trainable = False
    wrapper = DenseQuantizeWrapper(layer, ranges="learned")
    wrapper(x)
    assert wrapper.trainable_weights == []
    wrapper.trainable = True
    assert len(wrapper.trainable_weights) == 3


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_is_told_to_every_quantizer(x, frozen):
    wrapper = dense_on(x, output_scheme=QuantizationScheme(), frozen=frozen)
    assert wrapper.frozen is frozen
    wrapper.frozen = not frozen
    assert [q.frozen for q in wrapper.activation_quantizers] == [not frozen] * 2


# Configuration


def test_config_gives_the_same_wrapper(x):
    wrapper = dense_on(
        x,
        quantize_specific_input_indices=[0],
        input_scheme=QuantizationScheme(bits=4),
        weight_scheme=QuantizationScheme(bits=5),
        output_scheme=QuantizationScheme(signed=False, symmetric=False),
        ranges="learned",
        frozen=True,
    )
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(wrapper))
    assert copy.get_config() == wrapper.get_config()
    assert copy.name == "quant_dense"


def test_documented_attributes(x):
    wrapper = dense_on(x)
    assert isinstance(wrapper.layer, layers.Dense)
    assert wrapper.quantize_inputs is True
    assert wrapper.quantize_weights is True
    assert wrapper.quantize_specific_input_indices is None
    assert wrapper.kernel_type == "kernel"
    assert wrapper.channel_axis == -1
    assert BaseQuantizeWrapper.CHILD_WRAPPERS["DenseQuantizeWrapper"] is DenseQuantizeWrapper


def test_base_classes_register_nothing():
    assert not [name for name in BaseQuantizeWrapper.CHILD_WRAPPERS if name.endswith("BaseQuantizeWrapper")]
    assert "BaseQuantizeWrapper" not in BaseQuantizeWrapper.CHILD_WRAPPERS


def test_unknown_ranges_are_refused():
    with pytest.raises(ValueError, match="ranges must be one of"):
        DenseQuantizeWrapper(layers.Dense(2), ranges="minmax")


def test_a_wrapper_enables_lora_on_its_layer():
    inputs = keras.Input((4,))
    x = layers.ReLU(name="relu")(layers.Dense(3, name="dense")(inputs))
    model = quantize_model(keras.Model(inputs, x), target="onnxruntime")
    wrappers = [layer for layer in model.layers if hasattr(layer, "enable_lora")]
    assert [wrapper.name for wrapper in wrappers] == ["quant_dense"]
    wrappers[0].enable_lora(2, lora_alpha=4)
    assert (wrappers[0].layer.lora_rank, wrappers[0].layer.lora_alpha) == (2, 4)
    model.compile("sgd", "mse")
    before = ops.convert_to_numpy(wrappers[0].layer.lora_kernel_b)
    model.fit(np.ones((4, 4), "float32"), np.ones((4, 3), "float32"), verbose=0)
    assert (ops.convert_to_numpy(wrappers[0].layer.lora_kernel_b) != before).any()


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tensorrt"])
def test_mask_that_a_softmax_gets_by_position_reaches_it(tmp_path, target):
    scores, mask = keras.Input((4, 8)), keras.Input((4, 4), dtype="bool")
    y = layers.Softmax()(layers.Dense(4)(scores), mask)
    model = keras.Model([scores, mask], ops.matmul(y, scores))
    seen = np.repeat(np.tri(4, dtype=bool)[None], 2, 0)
    data = [np.random.default_rng(0).normal(size=(2, 4, 8)).astype("float32"), seen]
    quantized = calibrate(quantize_model(model, target=target), data, verbose=0)
    np.testing.assert_allclose(*(ops.convert_to_numpy(m(data)) for m in (quantized, model)), atol=0.1)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=data)
