"""The cases of NVIDIA's toolkit: rules that choose layers to quantize by the model's structure.

Pass instances to `quantize_model(..., custom_qdq_cases=[...])`. The default target leaves residual sums, max pooling,
products and normalizations float; the cases quantize them for TensorRT. The other targets need no cases.
"""

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
    """Return whether a case may decide on a layer: no entry of the spec matches its name.

    Examples:
        >>> spec = QuantizationSpec()
        >>> spec.add("add")
        >>> check_is_quantizable_by_layer_name(spec, "add"), check_is_quantizable_by_layer_name(spec, "add_1")
        (False, True)

    Args:
        qspec: the user's `QuantizationSpec`; `None`: no entries.
        layer_name: the name of the layer.

    Returns:
        `True` if no entry by name matches; entries by class do not count.
    """
    return qspec is None or qspec.find(layer_name) is None


class _StructureCase(CustomQDQInsertionCase):
    """A case made of structure rules, applied to each layer, also to layers of nested models and blocks."""

    #: The first rule that returns inputs for a layer decides.
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
                # Layers of several nested models may have the same name; a path is unique.
                name = call.name if names[call.name] == 1 else call.path
                index = _index(call, inputs)
                asked.add(name, quantize_input=True, quantize_weight=False, quantization_index=index)
        return asked


def _index(call: Call, inputs: list[int]) -> list[int] | None:
    """The `quantization_index` for these inputs. As in NVIDIA's toolkit, only a Multiply lists all its inputs."""
    if len(inputs) == len(call.inputs) and "Multiply" not in call.class_names:
        return None
    return inputs


class BNQDQCase(_StructureCase):
    """Quantizes the input of each BatchNormalization that is not folded into the layer before it.

    A pre-activation ResNet has such normalizations. A normalization after a convolution or Dense is folded into the
    weights.

    Examples:
        >>> inputs = keras.Input((8, 8, 3))
        >>> outputs = keras.layers.BatchNormalization(name="bn")(keras.layers.MaxPooling2D()(inputs))
        >>> quantized = quantize_model(keras.Model(inputs, outputs), custom_qdq_cases=[BNQDQCase()])
        >>> [layer.name for layer in describe(quantized) if layer.quantized]
        ['quant_bn']
    """

    rules = (unfolded_normalization_input,)


class MaxPoolQDQCase(_StructureCase):
    """Quantizes the input of each MaxPooling2D.

    Examples:
        >>> inputs = keras.Input((8, 8, 3))
        >>> model = keras.Model(inputs, keras.layers.MaxPooling2D(name="pool")(inputs))
        >>> [layer.name for layer in describe(quantize_model(model, custom_qdq_cases=[MaxPoolQDQCase()]))]
        ['quant_pool']
    """

    rules = (max_pooling_input,)


class ResidualConnectionQDQCase(_StructureCase):
    """Quantizes the inputs of each Add, except the output of the convolution that fuses the Add.

    A convolution fuses the Add if only this Add reads its output, maybe after BatchNormalization, activation and
    dropout. If several inputs come from such convolutions, the last convolution fuses the Add.

    Examples:
        >>> inputs = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(3, 3, padding="same")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, x]))
        >>> spec = ResidualConnectionQDQCase().case(model, QuantizationSpec())
        >>> [(entry.name, entry.quantization_index) for entry in spec.layers]
        [('add', [0])]
    """

    rules = (residual_inputs,)


class ResNetV1QDQCase(_StructureCase):
    """The case for ResNet v1: residual sums, as `ResidualConnectionQDQCase`.

    Examples:
        >>> quantized = quantize_model(model, custom_qdq_cases=[ResNetV1QDQCase()])
    """

    rules = (residual_inputs,)


class ResNetV2QDQCase(_StructureCase):
    """The case for ResNet v2: residual sums, max pooling, and each BatchNormalization that is not folded.

    It combines `ResidualConnectionQDQCase`, `BNQDQCase` and `MaxPoolQDQCase`.

    Examples:
        >>> quantized = quantize_model(model, custom_qdq_cases=[ResNetV2QDQCase()])
    """

    rules = (residual_inputs, unfolded_normalization_input, max_pooling_input)


class EfficientNetQDQCase(_StructureCase):
    """The case for EfficientNet: residual sums, and all inputs of each Multiply (squeeze-and-excite).

    Examples:
        >>> quantized = quantize_model(model, custom_qdq_cases=[EfficientNetQDQCase()])
    """

    rules = (residual_inputs, multiply_inputs)


class MobileNetQDQCase(_StructureCase):
    """The case for MobileNet: residual sums, as `ResidualConnectionQDQCase`.

    Examples:
        >>> quantized = quantize_model(model, custom_qdq_cases=[MobileNetQDQCase()])
    """

    rules = (residual_inputs,)


class InceptionQDQCase(_StructureCase):
    """The case for Inception: max pooling, as `MaxPoolQDQCase`.

    Examples:
        >>> quantized = quantize_model(model, custom_qdq_cases=[InceptionQDQCase()])
    """

    rules = (max_pooling_input,)
