"""`CustomQDQInsertionCase`: rules that place Q/DQ by the model's structure, and those of the library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter

import keras

from tensorflow_quantization.graph import Call, LayerGraph
from tensorflow_quantization.spec import QuantizationSpec

__all__ = [
    "BNQDQCase",
    "CustomQDQInsertionCase",
    "EfficientNetQDQCase",
    "InceptionQDQCase",
    "MaxPoolQDQCase",
    "MobileNetQDQCase",
    "ResNetV1QDQCase",
    "ResNetV2QDQCase",
    "ResidualConnectionQDQCase",
    "check_is_quantizable_by_layer_name",
]


class CustomQDQInsertionCase(ABC):
    """Base class of a rule: subclass it and override `case`."""

    def info(self) -> str:
        """What the rule is for, in a line."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]

    @abstractmethod
    def case(self, keras_model: keras.Model, qspec: QuantizationSpec) -> QuantizationSpec | None:
        """What this rule asks of a model.

        Args:
            keras_model: the model that is quantized; not to be changed.
            qspec: a copy of the user's own spec (empty if there is none), whose entries win over what is returned.

        Returns:
            A spec with the layers that the rule speaks of, or `None` for none.
        """


def check_is_quantizable_by_layer_name(qspec: QuantizationSpec | None, layer_name: str) -> bool:
    """Whether a case may decide on a layer: the user's spec does not name it."""
    return qspec is None or qspec.find(layer_name) is None


class _GraphCase(CustomQDQInsertionCase):
    """A rule that looks at one layer at a time in the model's graph, nested models included."""

    def case(self, keras_model: keras.Model, qspec: QuantizationSpec) -> QuantizationSpec:
        graph = LayerGraph.trace(keras_model).flatten()
        names = Counter(call.name for call in graph.calls)
        asked = QuantizationSpec()
        for call in graph.calls:
            if not call.is_layer or not check_is_quantizable_by_layer_name(qspec, call.name):
                continue
            inputs = self.inputs(graph, call)
            if inputs:
                # A name alone is ambiguous where nested models repeat it.
                name = call.name if names[call.name] == 1 else call.path
                index = None if len(inputs) == len(call.inputs) else inputs
                asked.add(name, quantize_input=True, quantize_weight=False, quantization_index=index)
        return asked

    @abstractmethod
    def inputs(self, graph: LayerGraph, call: Call) -> list[int]:
        """The indices of the inputs of `call` to quantize; empty: the rule does not speak of it."""


class BNQDQCase(_GraphCase):
    """Quantizes the input of each BatchNormalization that does not follow a convolution (pre-activation ResNets).

    A runtime folds one that follows a convolution into its weights; that one stays untouched.
    """

    def inputs(self, graph, call):
        if "BatchNormalization" not in call.class_names:
            return []
        return [] if graph.fusable_convolution(call.inputs[0]) is not None else [0]


class MaxPoolQDQCase(_GraphCase):
    """Quantizes the input of each MaxPooling2D."""

    def inputs(self, graph, call):
        return [0] if "MaxPooling2D" in call.class_names else []


class ResidualConnectionQDQCase(_GraphCase):
    """Quantizes the inputs of each Add but one that a runtime fuses with the convolution it comes from.

    An input is left out if a convolution computes it (then maybe BatchNormalization, activation, dropout) and only this
    Add reads it; of several such inputs, the last.
    """

    def inputs(self, graph, call):
        if "Add" not in call.class_names:
            return []
        fused = graph.fused_with_sum(call)
        return [index for index, tensor in enumerate(call.inputs) if tensor is not fused]


class _Cases(_GraphCase):
    """Several rules as one: the first that speaks of a layer decides."""

    rules: tuple[type[_GraphCase], ...] = ()

    def inputs(self, graph, call):
        for rule in self.rules:
            found = rule().inputs(graph, call)
            if found:
                return found
        return []


class _MultiplyQDQCase(_GraphCase):
    """Quantizes all inputs of each Multiply (squeeze-and-excitation)."""

    def inputs(self, graph, call):
        return list(range(len(call.inputs))) if "Multiply" in call.class_names else []


class ResNetV1QDQCase(_Cases):
    """ResNet v1: residual connections."""

    rules = (ResidualConnectionQDQCase,)


class ResNetV2QDQCase(_Cases):
    """ResNet v2: residual connections, pre-activation BatchNormalization, max pooling."""

    rules = (ResidualConnectionQDQCase, BNQDQCase, MaxPoolQDQCase)


class EfficientNetQDQCase(_Cases):
    """EfficientNet: residual connections, and both inputs of each squeeze-and-excite Multiply."""

    rules = (ResidualConnectionQDQCase, _MultiplyQDQCase)


class MobileNetQDQCase(_Cases):
    """MobileNet: residual connections."""

    rules = (ResidualConnectionQDQCase,)


class InceptionQDQCase(_Cases):
    """Inception: max pooling."""

    rules = (MaxPoolQDQCase,)
