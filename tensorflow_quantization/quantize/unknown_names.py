"""Warnings of entries of a spec that match nothing in the model."""

from __future__ import annotations

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.keras_classes import is_of_keras, resolve_alias
from tensorflow_quantization.quantize.spec import LayerConfig, QuantizationSpec
from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.text.warn import warn_user
from tensorflow_quantization.wrappers import float_name


def warn_of_unknown_names(spec: QuantizationSpec, graph: LayerGraph) -> None:
    """Warn of each entry that matches no layer and no input of a flat graph, with the closest names."""
    layers = [call for call in graph.calls if call.is_layer]
    inputs = [tensor.name for tensor in graph.inputs]
    names = [*zip(inputs, inputs, strict=True), *((call.name, call.path) for call in layers)]
    classes = {name for call in layers for name in call.class_names_in_spec} | ({"InputLayer"} if inputs else set())
    for entry in spec.layers:
        if entry.is_keras_class:
            known = resolve_alias(entry.name) in classes
            hint = _hint_for_class(entry, layers, classes)
            what = "layer of class"
        else:
            known = any(entry.matches(name, path) for name, path in names)
            hint = _hint_for_name(entry, [name for pair in names for name in pair], classes)
            what = "layer that matches" if entry.is_pattern else "layer or input named"
        if not known:
            warn_user(f"The model has no {what} {entry.name!r}; this entry of the QuantizationSpec does nothing.{hint}")


def _hint_for_name(entry: LayerConfig, names: list[str], classes: set[str]) -> str:
    if resolve_alias(entry.name) in classes:
        return f" {entry.name!r} is a class: pass is_keras_class=True."
    folder, slash, name = entry.name.rpartition("/")
    in_float_model = f"{folder}{slash}{float_name(name)}"
    if in_float_model != entry.name and in_float_model in names:
        return f" Did you mean {in_float_model!r}? An entry names a layer of the float model."
    return did_you_mean(entry.name, names)


def _hint_for_class(entry: LayerConfig, layers: list[Call], classes: set[str]) -> str:
    name = entry.name
    own = [call.path for call in layers if call.class_name == name and name not in call.class_names_in_spec]
    if own:
        return f" {name!r} means keras.layers.{name}: name a custom {name} by its layer name, {' or '.join(own)}."
    if any(name in (call.name, call.path) for call in layers):
        return f" {name!r} is the name of a layer: leave out is_keras_class=True."
    custom = {type(call.operation).__name__ for call in layers if not is_of_keras(type(call.operation))}
    return did_you_mean(name, sorted(c for c in classes if hasattr(keras.layers, c) or c in custom))
