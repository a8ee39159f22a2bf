"""The rules of the library that place Q/DQ by the model's structure, under their documented names."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantize.case import CustomQDQInsertionCase
from tensorflow_quantization.quantize.spec import QuantizationSpec
from tensorflow_quantization.targets.structure import (
    StructureRule,
    first_of,
    max_pooling_input,
    multiply_inputs,
    residual_inputs,
    unfolded_normalization_input,
)

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


def check_is_quantizable_by_layer_name(qspec: QuantizationSpec | None, layer_name: str) -> bool:
    """Whether a case may decide on a layer: the user's spec does not name it."""
    return qspec is None or qspec.find(layer_name) is None


class _StructureCase(CustomQDQInsertionCase):
    """A case made of rules that look at one layer at a time, those of nested models and blocks included."""

    #: The first that speaks of a layer decides.
    rules: ClassVar[tuple[StructureRule, ...]] = ()

    def case(self, keras_model: keras.Model, qspec: QuantizationSpec) -> QuantizationSpec:
        graph = LayerGraph.trace(keras_model).flatten()
        names = Counter(call.name for call in graph.calls)
        asked = QuantizationSpec()
        for call in graph.calls:
            if not call.is_layer or not check_is_quantizable_by_layer_name(qspec, call.name):
                continue
            inputs = first_of(*self.rules)(graph, call)
            if inputs:
                # A name alone is ambiguous where nested models repeat it.
                name = call.name if names[call.name] == 1 else call.path
                index = _index(call, inputs)
                asked.add(name, quantize_input=True, quantize_weight=False, quantization_index=index)
        return asked


def _index(call: Call, inputs: list[int]) -> list[int] | None:
    """The index of an entry for these inputs: as the old toolkit has it, all are named of a product only."""
    if len(inputs) == len(call.inputs) and "Multiply" not in call.class_names:
        return None
    return inputs


class BNQDQCase(_StructureCase):
    """Quantizes the input of each BatchNormalization that is not folded into the layer before it.

    That is the one of a pre-activation ResNet. One that follows a convolution or a Dense is folded into its weights.
    """

    rules = (unfolded_normalization_input,)


class MaxPoolQDQCase(_StructureCase):
    """Quantizes the input of each MaxPooling2D."""

    rules = (max_pooling_input,)


class ResidualConnectionQDQCase(_StructureCase):
    """Quantizes the inputs of each Add but one that a runtime fuses with the convolution it comes from.

    An input is left out if a convolution computes it (then maybe BatchNormalization, activation, dropout) and only this
    Add reads it; of several such inputs, the last.
    """

    rules = (residual_inputs,)


class ResNetV1QDQCase(_StructureCase):
    """ResNet v1: residual connections."""

    rules = (residual_inputs,)


class ResNetV2QDQCase(_StructureCase):
    """ResNet v2: residual connections, pre-activation BatchNormalization, max pooling."""

    rules = (residual_inputs, unfolded_normalization_input, max_pooling_input)


class EfficientNetQDQCase(_StructureCase):
    """EfficientNet: residual connections, and both inputs of each squeeze-and-excite Multiply."""

    rules = (residual_inputs, multiply_inputs)


class MobileNetQDQCase(_StructureCase):
    """MobileNet: residual connections."""

    rules = (residual_inputs,)


class InceptionQDQCase(_StructureCase):
    """Inception: max pooling."""

    rules = (max_pooling_input,)
