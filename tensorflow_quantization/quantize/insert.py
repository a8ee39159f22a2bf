"""Apply a plan to one layer: wrap the layer, or add a quantizer before or after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.quantize.plan import LayerPlan, QuantizationPlan
from tensorflow_quantization.quantize.stored_reasons import ReasonsOfFloat
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme
from tensorflow_quantization.wrappers import quantized_name
from tensorflow_quantization.wrappers.attention import (
    AttentionBaseQuantizeWrapper,
    ProjectedAttentionBaseQuantizeWrapper,
)
from tensorflow_quantization.wrappers.layers import ActivationQuantizeWrapper, SeparableBaseQuantizeWrapper


def apply_plan(
    plan: LayerPlan, operation: keras.Operation, inputs: int, ranges: str, weight_ranges: str
) -> Sequence[keras.Operation]:
    """The operations that compute `operation`, quantized as planned, to be called one after the other.

    Args:
        plan: the decision on `operation`.
        operation: a layer or a `keras.ops` operation, which becomes part of the result and may be changed.
        inputs: how many tensors `operation` reads.
        ranges: how activation ranges follow training: "ema", "last", "learned" or "learned_offset".
        weight_ranges: how the ranges of weights do: "minmax" or "learned".
    """
    placement = plan.placement
    if not placement:
        return [operation]
    if plan.wrapper is None:
        return [operation, _quantizer(plan, operation.name, ranges)] if placement.output else [operation]
    if placement.pre_activation:
        return _split(plan, operation, inputs, ranges, weight_ranges)
    if placement.gate:
        return [_wrap_activation(plan, operation, ranges)]
    output = plan.output_scheme if placement.output else None
    return [_wrap(plan, operation, inputs, ranges, weight_ranges, output)]


def quantize_input(plan: QuantizationPlan, name: str, is_first: bool, ranges: str) -> Sequence[keras.Operation]:
    """The layers to call on a model input: its quantizer, if the plan has one.

    Where the plan quantizes nothing, the first input gets a `ReasonsOfFloat`, which stores the reasons.

    Args:
        plan: the plan for the whole model.
        name: the name of the model input.
        is_first: whether this is the first input of the model.
        ranges: how activation ranges follow training: "ema", "last", "learned" or "learned_offset".
    """
    if not plan.quantizes:
        return [ReasonsOfFloat(name=f"reasons_of_{name}")] if is_first else []
    decision = plan.layers.get(name)
    if decision is None or decision.class_name != "InputLayer":
        return []
    return [_quantizer(decision, name, ranges)]


def quantize_operand(plan: LayerPlan, call: Call, tensor: Tensor, ranges: str) -> Sequence[keras.Operation]:
    """The quantizer between `tensor` and a `keras.ops` operation that reads it, if the plan has such a quantizer."""
    index = next((i for i in plan.inputs if call.operands[i] is tensor), None)
    if index is None:
        return []
    name = quantized_name(f"{call.name}_input_{index}")
    return [ActivationQuantizer(plan.activation_scheme, ranges, target=plan.target, name=name)]


def _quantizer(plan: LayerPlan, name: str, ranges: str) -> ActivationQuantizer:
    return ActivationQuantizer(plan.output_scheme, ranges, target=plan.target, name=quantized_name(name))


def _wrap(
    plan: LayerPlan, layer, inputs: int, ranges: str, weight_ranges: str, output_scheme: QuantizationScheme | None
) -> keras.layers.Layer:
    assert plan.wrapper is not None
    chosen = plan.placement.inputs
    kwargs: dict[str, Any] = {}
    separable = issubclass(plan.wrapper, SeparableBaseQuantizeWrapper) and plan.wrapper.divides(layer)
    if plan.placement.pointwise_input and separable:
        kwargs["inner_scheme"] = plan.activation_scheme
    if plan.placement.same_scale and chosen:
        kwargs["one_scale"] = True
    if issubclass(plan.wrapper, AttentionBaseQuantizeWrapper):
        kwargs.update(quantize_products=plan.placement.inner_matmuls, factor_scheme=plan.factor_scheme)
    if issubclass(plan.wrapper, ProjectedAttentionBaseQuantizeWrapper):
        kwargs.update(quantize_projections=plan.placement.projections, bias_inputs=plan.bias_inputs)
    return plan.wrapper(
        layer,
        quantize_inputs=bool(chosen),
        quantize_weights=plan.placement.weights,
        quantize_specific_input_indices=list(chosen) if chosen and len(chosen) < inputs else None,
        input_scheme=plan.activation_scheme,
        weight_scheme=plan.weight_scheme,
        output_scheme=output_scheme,
        ranges=ranges,
        weight_ranges=weight_ranges,
        target=plan.target,
        bias_input=plan.bias_input,
        normalization=plan.normalization,
        **kwargs,
    )


def _wrap_activation(plan: LayerPlan, layer, ranges: str) -> keras.layers.Layer:
    """An activation whose output is quantized, and its gate if planned."""
    return ActivationQuantizeWrapper(
        layer,
        quantize_inputs=False,
        gate_scheme=plan.gate_scheme if plan.placement.gate else None,
        output_scheme=plan.output_scheme,
        ranges=ranges,
        target=plan.target,
    )


def _split(plan: LayerPlan, layer, inputs: int, ranges: str, weight_ranges: str) -> list[keras.Operation]:
    """The layer without its activation and with a quantized output, then the activation as a separate layer."""
    activation = keras.layers.Activation(layer.activation, name=f"{layer.name}_activation", dtype=layer.dtype_policy)
    layer.activation = keras.activations.linear
    product = _wrap(plan, layer, inputs, ranges, weight_ranges, plan.activation_scheme)
    if not plan.placement.output:
        return [product, activation]
    return [product, _wrap_activation(plan, activation, ranges)]
