"""`QuantizeConfig`: what a user's class says about the quantizers of one layer."""

from __future__ import annotations

import abc
from typing import Any

import keras

from tensorflow_quantization.tfmot.quantization.keras.quantizers import Quantizer


class QuantizeConfig(abc.ABC):
    """Base class for the quantizers of one layer, passed to `quantize_annotate_layer`.

    Examples:
        >>> from tensorflow_quantization.tfmot.quantization.keras import QuantizeConfig, quantizers
        >>> class FourBits(QuantizeConfig):
        ...     def get_weights_and_quantizers(self, layer):
        ...         bits = {"num_bits": 4, "per_axis": True, "symmetric": True, "narrow_range": True}
        ...         return [(layer.kernel, quantizers.LastValueQuantizer(**bits))]
        ...     def get_activations_and_quantizers(self, layer):
        ...         return []
        ...     def set_quantize_weights(self, layer, quantize_weights):
        ...         layer.kernel = quantize_weights[0]
        ...     def set_quantize_activations(self, layer, quantize_activations):
        ...         pass
        ...     def get_output_quantizers(self, layer):
        ...         return []
        ...     def get_config(self):
        ...         return {}
        >>> FourBits.from_config(FourBits().get_config()) is not None
        True
    """

    @abc.abstractmethod
    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[Any, Quantizer]]:
        """Returns pairs of a variable of `layer` and its quantizer; an empty list: the weights stay float."""

    @abc.abstractmethod
    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[Any, Quantizer]]:
        """Returns pairs of an activation function of `layer` and its quantizer, which quantizes what it returns."""

    @abc.abstractmethod
    def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: list[Any]) -> None:
        """Replaces weights of the layer. Not called here: the layer computes with quantized values of its variables."""

    @abc.abstractmethod
    def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: list[Any]) -> None:
        """Sets activations of the layer, in the order of `get_activations_and_quantizers`.

        It is called for activations other than `layer.activation`, before each call of the layer with the quantized
        activations and after it with the activations themselves.
        """

    @abc.abstractmethod
    def get_output_quantizers(self, layer: keras.layers.Layer) -> list[Quantizer]:
        """Returns the quantizer of the output in a list; an empty list: the output stays float."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`, with which `from_config` makes an equal object."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizeConfig:
        """Returns the object that has this `get_config`."""
        return cls(**config)


def serialized(config: QuantizeConfig | None) -> dict[str, Any] | None:
    """Returns a config as Keras stores it in the config of a layer; `None` for `None`."""
    return None if config is None else keras.saving.serialize_keras_object(config)


def deserialized(config: QuantizeConfig | dict[str, Any] | None) -> QuantizeConfig | None:
    """Returns the object that `serialized` stored. Its class must be registered, or in the `quantize_scope`."""
    return keras.saving.deserialize_keras_object(config) if isinstance(config, dict) else config
