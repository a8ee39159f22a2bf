"""`quantize_model`, `quantize_apply` and `quantize_scope`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_classes import is_of_keras, is_of_package
from tensorflow_quantization.quantize.insert import apply_plan
from tensorflow_quantization.quantize.pipeline import decide, insert
from tensorflow_quantization.quantize.plan import LayerPlan
from tensorflow_quantization.quantize.planner import FULL
from tensorflow_quantization.quantize.spec import QuantizationSpec
from tensorflow_quantization.tfmot.quantization.keras import quantizers
from tensorflow_quantization.tfmot.quantization.keras.annotate import (
    QuantizeAnnotate,
    check_model,
    quantize_annotate_model,
    without_annotations,
)
from tensorflow_quantization.tfmot.quantization.keras.default_8bit import (
    Default8BitQuantizeConfig,
    Default8BitQuantizeScheme,
)
from tensorflow_quantization.tfmot.quantization.keras.naming import with_prefix
from tensorflow_quantization.tfmot.quantization.keras.quantize_config import QuantizeConfig
from tensorflow_quantization.tfmot.quantization.keras.scheme import QuantizeScheme
from tensorflow_quantization.tfmot.quantization.keras.wrapper import QuantizeWrapperV2, check_config, is_empty
from tensorflow_quantization.wrappers import find_wrapper, quantized_name


def quantize_model(to_quantize: keras.Model, quantized_layer_name_prefix: str | None = "quant_") -> keras.Model:
    """Return a copy of a model with fake quantization for LiteRT in all layers, for training.

    `calibrate` sets the ranges without training; `export_litert` writes the file.

    Examples:
        >>> import tensorflow_quantization.tfmot as tfmot
        >>> quantized = tfmot.quantization.keras.quantize_model(model)
        >>> describe(quantized)["conv"].quantized
        True

    Args:
        to_quantize: a built `keras.Sequential` or functional model, which stays as it is.
        quantized_layer_name_prefix: before the names of quantized layers; default "quant_". With another prefix,
            `compare` does not find a layer's counterpart in the float model.

    Returns:
        The quantized `keras.Model`, which is not compiled.

    Raises:
        ValueError: `to_quantize` is no such model.
        RuntimeError: the model has a layer of a class that is not of Keras, without an annotation.
    """
    check_model("to_quantize", to_quantize)
    return quantize_apply(quantize_annotate_model(to_quantize), quantized_layer_name_prefix=quantized_layer_name_prefix)


def quantize_apply(
    model: keras.Model,
    scheme: QuantizeScheme | None = None,
    quantized_layer_name_prefix: str | None = "quant_",
) -> keras.Model:
    """Return a copy of an annotated model with fake quantization in the annotated layers, for training.

    Layers without an annotation stay in float. Quantized layers are named `quant_<layer name>`.

    Examples:
        >>> from tensorflow_quantization.tfmot.quantization.keras import quantize_annotate_layer, quantize_apply
        >>> inputs = keras.Input((8,), name="x")
        >>> x = quantize_annotate_layer(keras.layers.Dense(4, name="hidden"))(inputs)
        >>> annotated = keras.Model(inputs, keras.layers.Dense(2, name="scores")(x))
        >>> [layer.name for layer in describe(quantize_apply(annotated)) if layer.quantized]
        ['quant_x', 'quant_hidden']

    Args:
        model: a built `keras.Sequential` or functional model with annotated layers; it stays as it is.
        scheme: a `QuantizeScheme`; `None` (default): `Default8BitQuantizeScheme()`.
        quantized_layer_name_prefix: before the names of quantized layers; default "quant_". With another prefix,
            `compare` does not find a layer's counterpart in the float model.

    Returns:
        The quantized `keras.Model`, which is not compiled.

    Raises:
        ValueError: `model` is no such model; no layer is annotated; the scheme is none of this package; or a
            `QuantizeConfig` asks for what this package has not. The message names the layer.
        RuntimeError: an annotated layer is of a class that is not of Keras, and has no `QuantizeConfig`.
    """
    check_model("model", model)
    scheme = _check_scheme(scheme)
    graph, annotations = without_annotations(model)
    if not annotations:
        raise ValueError(
            f"Model {model.name!r} has no annotated layer. Annotate layers with quantize_annotate_layer, or the model "
            "with quantize_annotate_model."
        )
    configs = {path: a.quantize_config for path, a in annotations.items() if a.quantize_config is not None}
    for path, annotation in annotations.items():
        _check_supported(path, annotation)
        if annotation.quantize_config is not None:
            check_config(annotation.layer, annotation.quantize_config)
    float_model = rewrite(graph, lambda call, copy: [copy], compiled=False)
    spec, how = _spec(graph.flatten(), annotations), (None, scheme.target, scheme.weight_bits, scheme.activation_bits)
    decided = decide(float_model, FULL, spec, *how)
    if not decided[1].quantizes:  # layers that only move data do so in integers, if these come in
        for tensor in graph.inputs:
            spec.add(tensor.name)
        decided = decide(float_model, FULL, spec, *how)

    def apply(layer: LayerPlan, copy: Any, inputs: int, ranges: str, weight_ranges: str) -> Sequence[keras.Operation]:
        config = configs.get(layer.path)
        if config is None:
            return apply_plan(layer, copy, inputs, ranges, weight_ranges)
        return [_configured(layer, copy, inputs, config)]

    quantized = insert(*decided, apply=apply)
    prefix = quantized_layer_name_prefix or ""
    return quantized if prefix == quantized_name("") else with_prefix(quantized, prefix)


def quantize_scope(*args: Mapping[str, Any]) -> keras.saving.CustomObjectScope:
    """Return a context in which Keras loads quantized and annotated models with classes of the user's own.

    Examples:
        >>> from tensorflow_quantization.tfmot.quantization.keras import quantize_scope
        >>> with quantize_scope({"MyLayer": MyLayer}):
        ...     keras.saving.get_registered_object("MyLayer") is MyLayer
        True

    Args:
        *args: dicts of a class by its name: custom layers, `QuantizeConfig` and `Quantizer` classes.
    """
    own = {name: getattr(quantizers, name) for name in quantizers.__all__}
    own |= {cls.__name__: cls for cls in (QuantizeAnnotate, QuantizeWrapperV2, Default8BitQuantizeConfig)}
    return keras.saving.CustomObjectScope({**own, **{name: cls for group in args for name, cls in group.items()}})


def _check_scheme(scheme: Any) -> QuantizeScheme:
    if scheme is None:
        return Default8BitQuantizeScheme()
    if not isinstance(scheme, QuantizeScheme) or hasattr(scheme, "get_quantize_registry"):
        raise ValueError(
            f"scheme must be a Default8BitQuantizeScheme or DefaultNBitQuantizeScheme, got {type(scheme).__name__}. A "
            "target places the quantizers here: pass QuantizeScheme(target=...), or a QuantizeConfig for a layer."
        )
    return scheme


def _check_supported(path: str, annotation: QuantizeAnnotate) -> None:
    layer = annotation.layer
    if annotation.quantize_config is not None or is_of_keras(type(layer)):
        return
    wrapper = find_wrapper(layer)
    if wrapper is not None and not is_of_package(wrapper):
        return
    raise RuntimeError(
        f"Layer {path!r} ({type(layer).__name__}) is not of Keras. Pass a QuantizeConfig to quantize_annotate_layer, "
        "or write a wrapper for the class; tensorflow_quantization.quantize_model quantizes the layers within it."
    )


def _spec(graph: LayerGraph, annotations: Mapping[str, QuantizeAnnotate]) -> QuantizationSpec:
    """The entries for layers that the target alone must not decide on."""
    spec, layers = QuantizationSpec(), [call for call in graph.calls if call.is_layer]
    whole = all(call.path in annotations or isinstance(call.operation, keras.layers.Lambda) for call in layers)
    for call in {call.path: call for call in graph.calls}.values():
        annotation = annotations.get(call.path)
        if annotation is None:
            if call.is_layer or not whole:  # operations have no annotations
                spec.add(call.path, quantize_input=False, quantize_weight=False)
            continue
        config, layer = annotation.quantize_config, annotation.layer
        if config is None:
            continue
        if not is_empty(layer, config):
            spec.add(call.path)
        elif not is_of_keras(type(layer)):
            spec.add(call.path, quantize_input=False, quantize_weight=False)
    return spec


def _configured(plan: LayerPlan, layer: Any, inputs: int, config: QuantizeConfig) -> QuantizeWrapperV2:
    """The layer with the quantizers of its config, and with the quantizers of its inputs that are planned."""
    chosen = list(plan.placement.inputs)
    return QuantizeWrapperV2(
        layer,
        config,
        quantize_inputs=bool(chosen),
        quantize_specific_input_indices=chosen if chosen and len(chosen) < inputs else None,
        input_scheme=plan.activation_scheme,
        target=plan.target,
        bias_input=plan.bias_input,
        normalization=plan.normalization,
    )
