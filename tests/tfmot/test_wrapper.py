import keras
import numpy as np
import pytest
from tfmot_configs import CLASSES, ClipConfig, DenseConfig, EmptyConfig, dense_model, quantization, samples, train

from tensorflow_quantization import calibrate

Wrapper = quantization.QuantizeWrapperV2
quantizers = quantization.quantizers
registry = quantization.default_8bit.Default8BitQuantizeRegistry


def test_output_of_a_layer_is_quantized_in_the_initial_range():
    layer = keras.layers.ReLU()
    x = np.random.default_rng(0).random((1, 2, 1)).astype("float32")
    y = np.asarray(keras.ops.convert_to_numpy(Wrapper(layer, registry().get_quantize_config(layer))(x)))
    step = 12 / 255  # from -6 to 6
    np.testing.assert_allclose(y, np.round(x / step) * step, atol=1e-6)


def test_config_of_the_wrapper_is_restored():
    wrapper = Wrapper(keras.layers.Dense(3, name="dense"), DenseConfig())
    with quantization.quantize_scope(CLASSES):
        restored = keras.layers.deserialize(keras.layers.serialize(wrapper))
    assert restored.get_config() == wrapper.get_config()


def test_default_wrapper_is_an_instance_too():
    quantized = quantization.quantize_model(dense_model())
    assert isinstance(quantized.get_layer("quant_scores"), quantization.QuantizeWrapper)
    assert issubclass(Wrapper, quantization.QuantizeWrapper)


def test_model_or_other_config_is_refused():
    with pytest.raises(ValueError, match="A layer is wrapped"):
        Wrapper(dense_model(), DenseConfig())
    with pytest.raises(ValueError, match="'mine' must be a QuantizeConfig"):
        Wrapper(keras.layers.Dense(1, name="mine"), None)


class TwoActivations(keras.layers.Layer):
    """Its activation is not its last operation."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gate = keras.activations.sigmoid

    def call(self, inputs):
        return inputs * self.gate(inputs)


class GateConfig(EmptyConfig):
    def get_activations_and_quantizers(self, layer):
        return [(layer.gate, quantizers.FixedQuantizer(2, 0.0, 0.75, narrow_range=False))]

    def set_quantize_activations(self, layer, quantize_activations):
        (layer.gate,) = quantize_activations


def test_activation_within_a_layer_is_quantized_and_then_restored():
    layer = TwoActivations()
    wrapper = Wrapper(layer, GateConfig(), quantize_inputs=False)
    x = np.float32([[4.0, 0.1, -4.0]])
    gate = np.round(np.clip(1 / (1 + np.exp(-x)), 0, 0.75) * 4) / 4
    np.testing.assert_allclose(keras.ops.convert_to_numpy(wrapper(x)), x * gate, atol=1e-6)
    assert layer.gate is keras.activations.sigmoid
    assert "within the layer" in wrapper.why_not_exported


def test_range_of_all_batches_only_widens():
    class Config(EmptyConfig):
        def get_output_quantizers(self, layer):
            return [quantizers.AllValuesQuantizer(8, per_axis=False, symmetric=False, narrow_range=False)]

    wrapper = Wrapper(keras.layers.ReLU(), Config(), quantize_inputs=False)
    for high in (1.0, 5.0, 2.0):
        wrapper(np.float32([[0.5, high]]), training=True)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(wrapper.output_quantizer.range), [0.5, 5.0])


def test_own_quantizer_keeps_its_variables_in_the_model(tmp_path):
    x, y = samples(10, 4, 3)
    model = keras.Sequential(
        [keras.Input((4,)), quantization.quantize_annotate_layer(keras.layers.Dense(3, name="dense"), ClipConfig())]
    )
    quantized = train(quantization.quantize_apply(model), x, y, "mse")
    (own,) = quantized.get_layer("quant_dense").own_weights.values()
    own.quantizer_weights["limit"].assign(0.03)
    quantized.save(tmp_path / "model.keras")
    with quantization.quantize_scope(CLASSES):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    (restored,) = loaded.get_layer("quant_dense").own_weights.values()
    assert float(restored.quantizer_weights["limit"]) == pytest.approx(0.03)


def test_add_weight_takes_the_arguments_of_keras_2_and_3():
    class Adding(quantizers.Quantizer):
        def build(self, tensor_shape, name, layer):
            return {"old": layer.add_weight(name, (2,), None, "ones"), "new": layer.add_weight((3,), "zeros")}

        def __call__(self, inputs, training, weights, **kwargs):
            return inputs

        def get_config(self):
            return {}

    class Config(EmptyConfig):
        def get_output_quantizers(self, layer):
            return [Adding()]

    wrapper = Wrapper(keras.layers.ReLU(), Config())
    wrapper(np.ones((1, 2), "float32"))
    made = {name: keras.ops.convert_to_numpy(v).tolist() for name, v in wrapper.own_output.quantizer_weights.items()}
    assert made == {"old": [1.0, 1.0], "new": [0.0, 0.0, 0.0]}


def test_configured_model_is_calibrated():
    x, _ = samples()
    model = keras.Sequential(
        [keras.Input((10,)), quantization.quantize_annotate_layer(keras.layers.Dense(3, name="dense"), DenseConfig())]
    )
    quantized = calibrate(quantization.quantize_apply(model), x, verbose=0)
    assert quantized.get_layer("quant_dense").output_quantizer.seen
