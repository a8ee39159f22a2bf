"""`QuantizeWrapperV2`: a layer with the quantizers of its `QuantizeConfig`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import ops, tree

from tensorflow_quantization.model.keras_internals import sublayers, without_autocast
from tensorflow_quantization.model.weights import merged, substitutes
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme, WeightQuantizer
from tensorflow_quantization.tfmot.quantization.keras.quantize_config import (
    QuantizeConfig,
    deserialized,
    serialized,
)
from tensorflow_quantization.tfmot.quantization.keras.quantizer_layers import (
    OwnQuantizer,
    activation_quantizer,
    check_activation_quantizer,
    check_weight_quantizer,
    weight_quantizer,
)
from tensorflow_quantization.wrappers import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.substitution import call_with


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class QuantizeWrapperV2(BaseQuantizeWrapper, registers=False):
    """A layer with the quantizers of its `QuantizeConfig`; `quantize_apply` makes it.

    Args:
        layer: the `keras.layers.Layer` to wrap, built or not.
        quantize_config: its `QuantizeConfig`.
        **kwargs: arguments of `BaseQuantizeWrapper`; schemes and ranges come from the config.

    Raises:
        ValueError: `layer` is a model or no layer; `quantize_config` is none; or in `build`, what the config says
            cannot be done; the message names the layer.
    """

    def __init__(self, layer: keras.layers.Layer, quantize_config: QuantizeConfig, **kwargs):
        if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
            raise ValueError(f"A layer is wrapped, got a {type(layer).__name__}. Pass a model to quantize_model.")
        if not isinstance(quantize_config, QuantizeConfig):
            raise ValueError(
                f"The quantize_config of layer {layer.name!r} must be a QuantizeConfig, got a "
                f"{type(quantize_config).__name__}."
            )
        kwargs.setdefault("quantize_inputs", False)  # the layer before quantizes them
        kwargs["quantize_weights"] = False  # of `build` in the base class: one scheme for all kernels
        super().__init__(layer, **kwargs)
        self.quantize_config = quantize_config
        self.own_weights: dict[str, OwnQuantizer] = {}
        self.own_output: OwnQuantizer | None = None
        self.activations: list[Any] = []
        self.inner: list[ActivationQuantizer | OwnQuantizer] = []

    @property
    def why_not_exported(self) -> str | None:
        """A clause that says which quantizers no file can have; `None` if a file can have all."""
        own = [*self.own_weights.values(), *([self.own_output] if self.own_output else [])]
        own += [quantizer for quantizer in self.inner if isinstance(quantizer, OwnQuantizer)]
        if own:
            return f"has a Quantizer of your own, {type(own[0].quantizer).__name__}"
        return "has quantized activations within the layer" if self.inner else None

    def build(self, input_shape=None):
        super().build(input_shape)
        for name, quantizer in _named(self.quantize_config.get_weights_and_quantizers(self.layer), self.layer):
            shape = tuple(merged(self.layer, name).shape)
            label = f"{name.replace('.', '_')}_quantizer"
            made = weight_quantizer(quantizer, self.layer, name, shape, name=label, trainable=self.trainable)
            if isinstance(made, WeightQuantizer):
                self.weight_quantizers[name] = made
            else:
                self.own_weights[name] = made
        self.kernel_type = tuple(self.weight_quantizers)
        self._build_outputs(input_shape)

    def _build_outputs(self, input_shape) -> None:
        layer, config, common = self.layer, self.quantize_config, {"trainable": self.trainable}

        def shape() -> tuple[int | None, ...]:
            inputs = tree.map_shape_structure(lambda s: keras.KerasTensor(s, self.compute_dtype), input_shape)
            return tuple(tree.flatten(layer.compute_output_spec(inputs))[0].shape)

        quantizers = list(config.get_output_quantizers(layer) or [])
        for index, (activation, quantizer) in enumerate(config.get_activations_and_quantizers(layer) or []):
            if activation is getattr(layer, "activation", None) and not isinstance(layer, keras.layers.RNN):
                quantizers.insert(0, quantizer)
                continue
            self.activations.append(activation)
            name = f"activation_{index}_quantizer"
            self.inner.append(activation_quantizer(quantizer, layer, "activation", shape, name=name, **common))
        if len(quantizers) == 2 and quantizers[0] == quantizers[1]:
            quantizers.pop()
        if len(quantizers) > 1:
            raise ValueError(
                f"The QuantizeConfig of layer {layer.name!r} returns {len(quantizers)} quantizers for its output and "
                "its last activation, which are one tensor. Return one of them."
            )
        for quantizer in quantizers:
            made = activation_quantizer(quantizer, layer, "output", shape, name="output_quantizer", **common)
            if isinstance(made, ActivationQuantizer):
                self.output_quantizer, self.output_scheme = made, made.scheme
            else:
                self.own_output = made

    def _inner_quantizers(self):
        return [quantizer for quantizer in self.inner if isinstance(quantizer, ActivationQuantizer)]

    def call(self, inputs, training=None, **kwargs):
        """Calls the layer with its quantized inputs, weights and activations, and quantizes the output."""
        if self.inner:
            quantized = [
                lambda x, a=a, q=q, **more: q(a(x, **more), training=training)
                for a, q in zip(self.activations, self.inner, strict=True)
            ]
            self.quantize_config.set_quantize_activations(self.layer, quantized)
        try:
            outputs = super().call(inputs, training=training, **kwargs)
        finally:
            if self.inner:
                self.quantize_config.set_quantize_activations(self.layer, self.activations)
        return outputs if self.own_output is None else self.own_output(outputs, training=training)

    def _call_layer(self, inputs, training, **kwargs):
        if not self.own_weights:
            return super()._call_layer(inputs, training, **kwargs)
        quantizers: dict[str, WeightQuantizer | OwnQuantizer] = {**self.weight_quantizers, **self.own_weights}
        with without_autocast():
            values = [
                pair
                for name, quantizer in quantizers.items()
                for pair in substitutes(self.layer, name, self._quantized(name, quantizer))
            ]
        return call_with(self, self._variables(), values, inputs, **kwargs)

    def _quantized(self, name: str, quantizer: WeightQuantizer | OwnQuantizer) -> Any:
        weight = merged(self.layer, name)
        return ops.cast(quantizer(weight), weight.dtype)

    def get_config(self):
        config = super().get_config()
        for name in ("quantize_weights", "weight_scheme", "output_scheme", "one_scale", "ranges", "weight_ranges"):
            del config[name]
        return {**config, "quantize_config": serialized(self.quantize_config)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(config.pop("layer"))
        scheme = QuantizationScheme.from_config(config.pop("input_scheme"))
        quantize_config: Any = deserialized(config.pop("quantize_config"))
        return cls(layer, quantize_config, input_scheme=scheme, **config)


def check_config(layer: keras.layers.Layer, config: QuantizeConfig) -> None:
    """Raises: ValueError: a built layer cannot have the quantizers of its config; the message names the layer."""
    activations = list(config.get_activations_and_quantizers(layer) or [])
    for name, quantizer in _named(config.get_weights_and_quantizers(layer), layer):
        check_weight_quantizer(quantizer, layer, name)
    for _, quantizer in activations:
        check_activation_quantizer(quantizer, layer, "activation")
    for quantizer in config.get_output_quantizers(layer) or []:
        check_activation_quantizer(quantizer, layer, "output")
    if isinstance(layer, keras.layers.RNN) and activations:
        raise ValueError(
            f"The QuantizeConfig of layer {layer.name!r} returns activations, and a recurrent layer computes them "
            "within a step, in float. Return [] for them, or a quantizer in get_output_quantizers."
        )


def is_empty(layer: keras.layers.Layer, config: QuantizeConfig) -> bool:
    """Returns whether a config quantizes nothing of a layer."""
    return not (
        config.get_weights_and_quantizers(layer)
        or config.get_activations_and_quantizers(layer)
        or config.get_output_quantizers(layer)
    )


def _named(pairs: Any, layer: keras.layers.Layer) -> Iterator[tuple[str, Any]]:
    """Yields, for each weight that a config returns, the name by which `layer` or a layer in it holds the weight.

    Raises:
        ValueError: the weight is no variable of the layer.
    """
    names = dict(_names(layer, ""))
    for weight, quantizer in pairs or []:
        if id(weight) not in names:
            raise ValueError(
                f"The QuantizeConfig of layer {layer.name!r} returns a weight that the layer does not hold as an "
                "attribute. Return variables of the layer, such as layer.kernel."
            )
        yield names[id(weight)], quantizer


def _names(layer: keras.layers.Layer, prefix: str) -> Iterator[tuple[int, str]]:
    attributes = vars(layer)
    for attribute, value in {**attributes, **attributes.get("_modules", {})}.items():  # where PyTorch has sublayers
        public = attribute.lstrip("_")
        if isinstance(value, keras.Variable):
            yield id(value), f"{prefix}{public if getattr(layer, public, None) is value else attribute}"
        elif isinstance(value, keras.layers.Layer) and any(value is inner for inner in sublayers(layer, False)):
            yield from _names(value, f"{prefix}{attribute}.")
