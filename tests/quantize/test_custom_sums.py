"""Custom layers that compute with several inputs and have no weights: quantized inside, like operations of a model."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import randomize

from tensorflow_quantization import (
    QuantizationSpec,
    calibrate,
    describe,
    export_litert,
    export_onnx,
    quantize_model,
    runtime_report,
)

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT needs TensorFlow")
TARGETS = [None, "tensorrt", "onnxruntime", "openvino", pytest.param("litert", marks=ON_TENSORFLOW)]


@keras.saving.register_keras_serializable(package="tests")
class ScaledSum(layers.Layer):
    """As in InceptionResNet."""

    def __init__(self, scale=0.25, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs):
        return inputs[0] + inputs[1] * self.scale

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def network(block=ScaledSum, **options):
    inputs = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    for i in range(2):
        y = layers.Conv2D(4, 3, padding="same", name=f"conv_{i}")(x)
        x = layers.ReLU(name=f"relu_{i}")(block(name=f"sum_{i}", **options)([x, y]))
    return randomize(keras.Model(inputs, layers.Conv2D(3, 1, name="head")(x)))


def data(count=8):
    return np.random.default_rng(0).normal(size=(count, 8, 8, 4)).astype("float32")


def outputs(model):
    return ops.convert_to_numpy(model(data(4)))


def export(model, target, folder):
    if target == "litert":
        return export_litert(model, folder / "m.tflite", verify_with=data(4))
    return export_onnx(model, folder / "m.onnx", verify_with=data(4))


@pytest.mark.parametrize("target", TARGETS)
def test_the_file_agrees_and_computes_in_integers(target, tmp_path):
    quantized = calibrate(quantize_model(network(), target=target), data(), verbose=0)
    path = export(quantized, target, tmp_path)
    if target in ("onnxruntime", "openvino"):
        assert runtime_report(path, target).integer_share == 1


def test_as_the_same_operations_in_the_model():
    def written_out(name):
        return lambda parts: ops.add(parts[0], parts[1] * 0.25)

    inside, outside = network(), network(written_out)
    outside.set_weights(inside.get_weights())
    results = [outputs(calibrate(quantize_model(m, target="tensorrt"), data(), verbose=0)) for m in (inside, outside)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "litert"])
def test_saved_and_loaded(target, tmp_path):
    quantized = calibrate(quantize_model(network(), target=target), data(), verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(quantized))


def test_the_shortcut_is_in_integers_for_tensorrt():
    found = describe(quantize_model(network(), target="tensorrt"))
    quantizers = [layer.name for layer in found if layer.quantized and "sum" in layer.name]
    assert quantizers == ["sum_0/quant_add_input_0", "sum_1/quant_add_input_0"]  # not what the convolution adds
    assert str(found["sum_0/multiply"].reason) == "folded into conv_0"


def test_a_layer_that_kernels_compute_stays_a_layer():
    quantized = quantize_model(network(), target="openvino")
    assert isinstance(quantized.get_layer("sum_0"), ScaledSum)
    assert str(describe(quantized)["sum_0"].reason) == "shares the quantizers of its inputs"


def test_a_spec_that_names_it_keeps_it_closed():
    spec = QuantizationSpec()
    spec.add("sum_0", quantize_input=False, quantize_output=False)
    quantized = quantize_model(network(), quantization_spec=spec, target="tensorrt")
    assert isinstance(quantized.get_layer("sum_0"), ScaledSum)
    assert isinstance(quantized.get_layer("sum_1"), keras.Model)


class Noisy(ScaledSum):
    """Computes something else in training."""

    def call(self, inputs, training=None):
        return inputs[0] + (inputs[1] * self.scale if training else inputs[1])


class Weighted(ScaledSum):
    """Has a weight."""

    def build(self, _):
        self.strength = self.add_weight(initializer="ones", name="strength")

    def call(self, inputs):
        return inputs[0] + self.strength * inputs[1]


class Untraceable(ScaledSum):
    """Has code that does not take symbolic tensors."""

    def call(self, inputs):
        float(keras.ops.sum(inputs[0]))
        return super().call(inputs)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)


class Sampling(ScaledSum):
    """Draws random numbers."""

    def __init__(self, scale=0.25, **kwargs):
        super().__init__(scale, **kwargs)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs[0] + keras.random.normal(ops.shape(inputs[0]), seed=self.seeds) * inputs[1]


class Penalized(ScaledSum):
    """Adds a loss."""

    def call(self, inputs):
        self.add_loss(ops.mean(ops.square(inputs[0])))
        return super().call(inputs)


@pytest.mark.parametrize("block", [Noisy, Penalized, Sampling, Untraceable, Weighted])
def test_other_layers_stay_as_they_are(block):
    quantized = quantize_model(network(block), target="tensorrt")
    assert type(quantized.get_layer("sum_0")) is block
    assert "no quantize wrapper" in str(describe(quantized)["sum_0"].reason)


def test_a_layer_in_which_nothing_is_quantized_is_kept():
    class Largest(layers.Layer):
        def call(self, inputs):
            return ops.where(inputs[0] > inputs[1], inputs[0], inputs[1])

    quantized = quantize_model(network(Largest), target="tensorrt")
    assert isinstance(quantized.get_layer("sum_0"), Largest)
