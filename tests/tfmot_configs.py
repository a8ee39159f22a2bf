"""QuantizeConfigs and quantizers as TFMOT's guide writes them, and small helpers for tests of `tfmot`."""

import keras
import numpy as np

import tensorflow_quantization.tfmot as tfmot

quantization = tfmot.quantization.keras
LastValueQuantizer = quantization.quantizers.LastValueQuantizer
MovingAverageQuantizer = quantization.quantizers.MovingAverageQuantizer


class DenseConfig(quantization.QuantizeConfig):
    """Kernel and activation in 8 bits."""

    weight_bits, per_axis = 8, False

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, LastValueQuantizer(self.weight_bits, self.per_axis, symmetric=True, narrow_range=False))]

    def get_activations_and_quantizers(self, layer):
        return [(layer.activation, MovingAverageQuantizer(8, per_axis=False, symmetric=False, narrow_range=False))]

    def set_quantize_weights(self, layer, quantize_weights):
        layer.kernel = quantize_weights[0]

    def set_quantize_activations(self, layer, quantize_activations):
        layer.activation = quantize_activations[0]

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {}


class PerAxisConfig(DenseConfig):
    per_axis = True


class FourBitConfig(DenseConfig):
    weight_bits = 4


class FloatActivationConfig(DenseConfig):
    def get_activations_and_quantizers(self, layer):
        return []


class EmptyConfig(FloatActivationConfig):
    def get_weights_and_quantizers(self, layer):
        return []


class ClipQuantizer(quantization.quantizers.Quantizer):
    """Clips to a variable range; without rounding, so the difference shows."""

    def build(self, tensor_shape, name, layer):
        start = keras.initializers.Constant(0.125)
        return {"limit": layer.add_weight(name + "_limit", initializer=start, trainable=False)}

    def __call__(self, inputs, training, weights, **kwargs):
        limit = keras.ops.convert_to_tensor(weights["limit"])  # as JAX needs it
        return keras.ops.clip(inputs, -limit, limit)

    def get_config(self):
        return {}


class ClipConfig(FloatActivationConfig):
    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, ClipQuantizer())]


class DenseOfMine(keras.layers.Dense):
    """A class that is not of Keras."""


CLASSES = {
    cls.__name__: cls
    for cls in (
        DenseConfig,
        PerAxisConfig,
        FourBitConfig,
        FloatActivationConfig,
        EmptyConfig,
        ClipQuantizer,
        ClipConfig,
        DenseOfMine,
    )
}


def dense_model(last="softmax"):
    """Two Dense layers, 10 inputs, 5 outputs."""
    return keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(5, activation=last, name="scores"),
        ]
    )


def samples(count=20, features=10, classes=5):
    """Random inputs and one-hot labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, features)).astype("float32")
    return x, np.eye(classes, dtype="float32")[rng.integers(0, classes, count)]


def train(model, x, y, loss="categorical_crossentropy", epochs=1):
    model.compile("sgd", loss)
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


def wrapped(model):
    """The wrappers of a quantized model, in order."""
    return [layer for layer in model.layers if isinstance(layer, quantization.QuantizeWrapper)]
