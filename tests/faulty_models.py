"""Small networks with sensible statistics, and twenty faults planted in their quantization.

Nothing is trained: kernels are initialized as for training, and BatchNormalizations hold the statistics of the data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from tensorflow_quantization import QuantizationSpec, calibrate, quantize_model
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import activation_quantizers


def images(count=32, seed=0):
    """Smooth images of 12 x 12 pixels with values from 0 to 1."""
    coarse = np.random.default_rng(seed).random((count, 6, 6, 3), "float32")
    return coarse.repeat(2, 1).repeat(2, 2)


def signals(count=64, seed=0):
    """Vectors of 16 normal features."""
    return np.random.default_rng(seed).normal(size=(count, 16)).astype("float32")


def _with_statistics(model, data):
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
            model(data, training=True)
            layer.momentum = 0.99
    return model


def chain():
    """Convolutions, with and without BatchNormalization."""
    inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", name="conv1")(inputs)
    x = layers.BatchNormalization(name="norm1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.Conv2D(16, 3, activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(16, 3, activation="relu", name="conv3")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return _with_statistics(keras.Model(inputs, layers.Dense(10, name="scores")(x), name="chain"), images())


def mobile():
    """An inverted residual block with a depthwise convolution."""
    inputs = keras.Input((12, 12, 3), name="image")
    stem = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="stem")(inputs)
    x = layers.Conv2D(24, 1, use_bias=False, name="expand")(stem)
    x = layers.BatchNormalization(name="expand_norm")(x)
    x = layers.ReLU(name="expand_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_norm")(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Conv2D(12, 1, name="project")(x)
    x = layers.Add(name="add")([stem, x])
    x = layers.Flatten(name="flatten")(x)
    outputs = layers.Dense(10, activation="softmax", name="scores")(x)
    return _with_statistics(keras.Model(inputs, outputs, name="mobile"), images())


def dense():
    """Dense layers with two outputs."""
    inputs = keras.Input((16,), name="features")
    x = layers.Dense(32, activation="relu", name="dense1")(inputs)
    x = layers.Dense(32, activation="tanh", name="dense2")(x)
    x = layers.Dense(32, activation="relu", name="dense3")(x)
    return keras.Model(inputs, [layers.Dense(4, name="left")(x), layers.Dense(3, name="right")(x)], name="dense")


NETWORKS = {"chain": (chain, images), "mobile": (mobile, images), "dense": (dense, signals)}


@dataclass
class Case:
    """A float model, its quantized model, and data to compare them on."""

    model: keras.Model
    quantized: keras.Model
    data: np.ndarray


@dataclass(frozen=True)
class Fault:
    """A fault, and the layer and the kind that `compare` must name first.

    Attributes:
        network: a key of `NETWORKS`.
        target: the target of `quantize_model`.
        layer, kind: what must be named.
        of_model: changes the float model.
        spec: arguments of an entry of a spec for the layer.
        of_quantized: changes the calibrated model.
        of_data: changes the data that is compared.
    """

    network: str
    target: str | None
    layer: str
    kind: str
    of_model: Callable[[keras.Model], Any] | None = None
    spec: dict[str, Any] | None = None
    of_quantized: Callable[[keras.Model], Any] | None = None
    of_data: Callable[[np.ndarray], np.ndarray] | None = None

    def plant(self) -> Case:
        """Returns the network with the fault."""
        keras.utils.set_random_seed(0)
        build, samples = NETWORKS[self.network]
        model = build()
        if self.of_model is not None:
            self.of_model(model)
        spec = QuantizationSpec()
        if self.spec is not None:
            spec.add(self.layer, **self.spec)
        quantized = quantize_model(model, target=self.target, quantization_spec=spec)
        calibrate(quantized, samples(), verbose=0)
        if self.of_quantized is not None:
            self.of_quantized(quantized)
        data = samples()
        return Case(model, quantized, data if self.of_data is None else self.of_data(data))

    def healthy(self) -> Case:
        """Returns the network without the fault."""
        return Fault(self.network, self.target, self.layer, self.kind).plant()


def scale_channels(*names, reader, channels=(1, 5, 6), factor=200.0):
    """Multiplies output channels by a factor, and divides the weights that read them: the function is the same."""

    def change(model):
        for name in names:
            for variable in model.get_layer(name).weights:
                if variable.name in ("kernel", "bias", "gamma", "beta"):
                    value = np.array(variable.numpy())
                    value[..., list(channels)] *= factor
                    variable.assign(value)
        kernel = model.get_layer(reader).kernel
        value = np.array(kernel.numpy())
        axis = -2
        np.moveaxis(value, axis, 0)[list(channels)] /= factor
        kernel.assign(value)

    return change


def change_weight(layer, weight, change):
    """Changes a weight of the quantized model."""

    def of_quantized(quantized):
        variable = getattr(quantized.get_layer(f"quant_{layer}").layer, weight)
        value = np.array(variable.numpy())
        change(value)
        variable.assign(value)

    return of_quantized


def quantizer_of(quantized, layer) -> ActivationQuantizer:
    """The only activation quantizer of a layer."""
    (found,) = activation_quantizers(quantized.get_layer(f"quant_{layer}"))
    return found


def scale_range(layer, factor):
    def of_quantized(quantized):
        quantizer = quantizer_of(quantized, layer)
        quantizer.set_range(*(factor * np.array(quantizer.range.numpy())))

    return of_quantized


def forget_range(layer):
    def of_quantized(quantized):
        quantizer = quantizer_of(quantized, layer)
        quantizer.set_range(-60.0, 60.0)
        quantizer.batches.assign(0.0)

    return of_quantized


def zero_channel(channel):
    def change(value):
        value[..., channel, :] = 0.0 if value.shape[-1] == 1 else value[..., channel, :]
        if value.shape[-1] != 1:
            value[..., channel] = 0.0

    return change


def flip_largest(value):
    index = np.unravel_index(np.argmax(np.abs(value)), value.shape)
    value[index] *= -1


def flip_channel(value):
    value[..., 3] *= -1


def shift_channel(value):
    value[2] += 2.0


FAULTS = {
    "scaled_channels": Fault(
        "chain", "onnxruntime", "conv2", "scaled_channels", of_model=scale_channels("conv2", reader="conv3")
    ),
    "scaled_channels_at_inputs": Fault(
        "chain", None, "conv2", "scaled_channels", of_model=scale_channels("conv2", reader="conv3")
    ),
    "scaled_channels_of_normalization": Fault(
        "chain", "openvino", "conv1", "scaled_channels", of_model=scale_channels("norm1", reader="conv2")
    ),
    "scaled_channels_of_dense": Fault(
        "dense", "onnxruntime", "dense1", "scaled_channels", of_model=scale_channels("dense1", reader="dense2")
    ),
    "two_bits": Fault("chain", "onnxruntime", "conv3", "bits", spec={"weight_bits": 2}),
    "three_bits": Fault("mobile", "onnxruntime", "depthwise", "bits", spec={"weight_bits": 3}),
    "three_bits_of_dense": Fault("dense", None, "dense2", "bits", spec={"weight_bits": 3}),
    "three_bit_activation": Fault("dense", None, "dense3", "bits", spec={"activation_bits": 3}),
    "not_scaled_down": Fault("chain", "onnxruntime", "image", "input", of_data=lambda x: 255 * x),
    "scaled_down_twice": Fault("mobile", None, "image", "input", of_data=lambda x: x / 255),
    "not_normalized": Fault("dense", "onnxruntime", "features", "input", of_data=lambda x: 40 + 20 * x),
    "clipped_range": Fault("chain", "onnxruntime", "conv2", "clipped", of_quantized=scale_range("conv2", 0.2)),
    "clipped_sum": Fault("mobile", "onnxruntime", "add", "clipped", of_quantized=scale_range("add", 0.3)),
    "wide_range": Fault("chain", None, "conv3", "wide", of_quantized=scale_range("conv3", 30)),
    "wide_range_of_dense": Fault("dense", "onnxruntime", "dense2", "wide", of_quantized=scale_range("dense2", 50)),
    "never_calibrated": Fault("mobile", None, "project", "unseen", of_quantized=forget_range("project")),
    "dead_channel": Fault(
        "chain", "onnxruntime", "conv2", "dead_channel", of_quantized=change_weight("conv2", "kernel", zero_channel(4))
    ),
    "one_sign": Fault(
        "dense", "onnxruntime", "dense1", "weights", of_quantized=change_weight("dense1", "kernel", flip_largest)
    ),
    "signs_of_a_channel": Fault(
        "mobile", "onnxruntime", "project", "weights", of_quantized=change_weight("project", "kernel", flip_channel)
    ),
    "wrong_bias": Fault("chain", None, "conv2", "bias", of_quantized=change_weight("conv2", "bias", shift_channel)),
}
