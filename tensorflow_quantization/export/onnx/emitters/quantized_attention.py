"""The wrappers of attention layers: quantizers around and inside the nodes of the layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters.quantized import input_names, quantize
from tensorflow_quantization.export.onnx.registry import emitter, find_emitter
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.wrappers.attention import AttentionQuantizeWrapper, ProjectedAttentionBaseQuantizeWrapper


@emitter(AttentionQuantizeWrapper, structural=True)
def attention(e: Emission, wrapper, inputs: Sequence[Value], **kwargs: Any) -> Any:
    return _attend(e, wrapper, (_quantize_inputs(e, wrapper, inputs),), kwargs)


@emitter(ProjectedAttentionBaseQuantizeWrapper, structural=True)
def projected_attention(
    e: Emission, wrapper, query: Value, value: Value, key: Value | None = None, **kwargs: Any
) -> Any:
    inputs = [query, value] if key is None else [query, value, key]
    return _attend(e, wrapper, _quantize_inputs(e, wrapper, inputs), kwargs)


def _quantize_inputs(e: Emission, wrapper, inputs: Sequence[Value]) -> list[Value]:
    return [
        x if quantizer is None else quantize(e, quantizer, x, name)
        for x, quantizer, name in zip(inputs, wrapper.input_quantizers, input_names(len(inputs)), strict=True)
    ]


def _attend(e: Emission, wrapper, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    entry = find_emitter(wrapper.layer)
    if entry is None:
        raise NotExpressibleError(f"wraps a {type(wrapper.layer).__name__}, which has no emitter")
    within = {}
    if wrapper.probability_quantizer is not None:
        within["probability"] = lambda x: quantize(e, wrapper.probability_quantizer, x, "probability")
    stand_ins = {id(part.layer): part for part in wrapper.parts.values()}
    inner = Emission(e.builder, e.path, wrapper.layer, e.outputs, record=e.record, stand_ins=stand_ins, within=within)
    result = inner.run(entry, inputs, kwargs)
    if wrapper.output_quantizer is None:
        return result
    outputs, *scores = result if isinstance(result, list) else [result]
    outputs = quantize(e, wrapper.output_quantizer, outputs, "output")
    return [outputs, *scores] if scores else outputs
