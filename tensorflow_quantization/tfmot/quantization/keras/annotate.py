"""Annotations: which layers `quantize_apply` quantizes, and how."""

from __future__ import annotations

from typing import Any

import keras

from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.functional import is_functional
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.keras_internals import input_shape_argument
from tensorflow_quantization.text.warn import warn_user
from tensorflow_quantization.tfmot.quantization.keras.quantize_config import (
    QuantizeConfig,
    deserialized,
    serialized,
)


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class QuantizeAnnotate(keras.layers.Wrapper):
    """A layer that `quantize_apply` quantizes; it computes what the layer in it computes.

    Args:
        layer: the `keras.layers.Layer`, no model.
        quantize_config: a `QuantizeConfig`; `None` (default): as the scheme says.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: `layer` is a model or no layer, or `quantize_config` is no `QuantizeConfig`.
    """

    def __init__(self, layer: keras.layers.Layer, quantize_config: QuantizeConfig | None = None, **kwargs):
        if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
            raise ValueError(
                f"A layer is annotated, and this is {_kind(layer)}. Pass a model to quantize_annotate_model."
            )
        if quantize_config is not None and not isinstance(quantize_config, QuantizeConfig):
            raise ValueError(
                f"The quantize_config of layer {layer.name!r} must be a QuantizeConfig, got {_kind(quantize_config)}."
            )
        shape = input_shape_argument(layer)
        if shape is not None:
            kwargs.setdefault("input_shape", shape)
        super().__init__(layer, **kwargs)
        self.quantize_config = quantize_config
        self.supports_masking = layer.supports_masking

    def build(self, input_shape=None):
        if input_shape is not None:  # a layer with several inputs is built when it is called
            super().build(input_shape)
        self.built = True

    def call(self, inputs, *args, **kwargs):
        """Calls the layer with the same arguments; Keras sets `training` for all layers within a call."""
        return self.layer(inputs, *args, **kwargs)

    def get_config(self):
        return {**super().get_config(), "quantize_config": serialized(self.quantize_config)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(config.pop("layer"))
        return cls(layer, deserialized(config.pop("quantize_config", None)), **config)


def quantize_annotate_layer(
    to_annotate: keras.layers.Layer, quantize_config: QuantizeConfig | None = None
) -> QuantizeAnnotate:
    """Return a layer around `to_annotate` that `quantize_apply` quantizes.

    Examples:
        >>> from tensorflow_quantization.tfmot.quantization.keras import quantize_annotate_layer
        >>> quantize_annotate_layer(keras.layers.Dense(2, name="scores")).layer.name
        'scores'

    Args:
        to_annotate: a `keras.layers.Layer`, no model.
        quantize_config: a `QuantizeConfig` with the quantizers of the layer; `None` (default): as the scheme says.

    Returns:
        The layer, in a wrapper that computes the same.

    Raises:
        ValueError: `to_annotate` is a model or no layer, or `quantize_config` is no `QuantizeConfig`.
    """
    return QuantizeAnnotate(to_annotate, quantize_config)


def quantize_annotate_model(to_annotate: keras.Model) -> keras.Model:
    """Return a copy of a model in which each layer is annotated that is not annotated yet.

    A `Lambda` layer stays as it is, with a warning. Layers of nested models are annotated, too, which TFMOT refuses.

    Examples:
        >>> from tensorflow_quantization.tfmot.quantization.keras import quantize_annotate_model
        >>> [type(layer).__name__ for layer in quantize_annotate_model(model).layers]
        ['InputLayer', 'QuantizeAnnotate', 'QuantizeAnnotate', 'QuantizeAnnotate']

    Args:
        to_annotate: a `keras.Sequential` or functional model.

    Returns:
        A `keras.Model` with copies of the weights, which is not compiled.

    Raises:
        ValueError: `to_annotate` is no such model, is not built, or a layer cannot be copied.
    """
    check_model("to_annotate", to_annotate)
    graph, annotations = without_annotations(to_annotate)
    plain = [call for call in graph.flatten().calls if isinstance(call.operation, keras.layers.Lambda)]
    left = [call.path for call in plain if call.path not in annotations]
    if left:
        warn_user(
            f"Lambda layers stay in float: {', '.join(left)}. Write keras.ops instead, or a layer of your own with a "
            "QuantizeConfig."
        )

    def annotate(call: Call, copy: Any) -> list[Any]:
        if not call.is_layer or call.path in left:
            return [copy]
        config = annotations[call.path].quantize_config if call.path in annotations else None
        return [QuantizeAnnotate(copy, config)]

    return rewrite(graph, annotate, compiled=False)


def check_model(argument: str, model: Any) -> None:
    """Raises: ValueError: `model` is neither Sequential nor functional, or is not built."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"{argument} must be a keras.Model, got {_kind(model)}. Pass a layer to quantize_annotate_layer."
        )
    if not isinstance(model, keras.Sequential) and not is_functional(model):
        raise ValueError(
            f"{argument} must be a Sequential or functional model, and {model.name!r} is a subclassed one. "
            'tensorflow_quantization.quantize_model(model, target="litert") quantizes it.'
        )
    if not model.built:
        raise ValueError(f"{argument} {model.name!r} is not built. Call {model.name}.build(input_shape) first.")


def without_annotations(model: keras.Model) -> tuple[LayerGraph, dict[str, QuantizeAnnotate]]:
    """Returns the graph of a model with the annotated layers in place of their annotations, and the annotations.

    The annotations are by path of the layer.
    """
    graph, annotations, seen = LayerGraph.trace(model), {}, set()

    def unwrap(graph: LayerGraph, prefix: str) -> None:
        for call in graph.calls:
            annotation = call.operation
            if isinstance(annotation, QuantizeAnnotate):
                call.operation = annotation.layer
            call.path = f"{prefix}{call.operation.name}"
            if isinstance(annotation, QuantizeAnnotate):
                annotations[call.path] = annotation
            if call.subgraph is not None and id(call.subgraph) not in seen:
                seen.add(id(call.subgraph))
                unwrap(call.subgraph, f"{call.path}/")

    unwrap(graph, "")
    return graph, annotations


def _kind(x: Any) -> str:
    return f"the class {x.__name__}" if isinstance(x, type) else f"a {type(x).__name__}"
