"""Attention layers: multi-head, grouped-query, dot-product and additive attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters._masking import (
    MASKED_SCORE,
    attention_window,
    boolean,
    both,
    unsqueeze,
)
from tensorflow_quantization.export.onnx.emitters.activation import softmax
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.model.keras_internals import (
    projection,
    score_equation,
    score_scale,
    sliding_window,
    softmax_layer,
    value_equation,
)

_HEADS_FIRST = (0, 2, 1, 3)


def _project(e: Emission, dense, x: Value, inner: str) -> Value:
    spec = keras.KerasTensor(dense.compute_output_shape(x.shape), "float32")
    return e.emit(dense, x, outputs=[spec], inner=inner)


def _merged_mask(
    e: Emission, query: Value, value: Value, masks: dict[str, Value], causal: bool, width: int | None
) -> ir.Value | np.ndarray | None:
    """All masks in one, which broadcasts to (batch, queries, values): true if the query may attend to the value."""
    merged = None
    for name, axis in (("query_mask", 2), ("value_mask", 1), ("key_mask", 1)):
        if name in masks:
            merged = both(e, merged, unsqueeze(e, boolean(e, masks[name]), [axis]))
    if causal or width is not None:
        merged = both(e, merged, attention_window(e, query, value, causal, width))
    return merged


def _at_heads(e: Emission, mask: Value | ir.Value | np.ndarray, rank: int) -> Any:
    """The mask with an axis for the heads, if it has none."""
    if rank != 3:
        return mask
    return np.expand_dims(mask, 1) if isinstance(mask, np.ndarray) else unsqueeze(e, mask, [1])


def _masked_softmax(e: Emission, scores: ir.Value, mask: Any, zeroed: bool) -> ir.Value:
    if mask is None:
        return e.op("Softmax", scores, axis=-1)
    weights = e.op("Softmax", e.op("Where", mask, scores, MASKED_SCORE), axis=-1)
    # If all values of a query are masked, Keras' softmax layer returns zeros, and its softmax function equal weights.
    return e.op("Where", mask, weights, 0.0) if zeroed else weights


def _attend(e: Emission, heads: Sequence[Value], scale: float, mask: Any, zeroed: bool) -> tuple[Value, Value]:
    """Output and weights (batch, heads, queries, values) of attention over heads (batch, time, heads, size)."""
    query, key, value = heads
    scores = e.op("MatMul", e.arrange(query, _HEADS_FIRST), e.arrange(key, (0, 2, 3, 1)))
    weights = _masked_softmax(e, e.op("Mul", scores, scale), mask, zeroed)
    # Do not use the shape of the weights in Keras, which may be wrong.
    seen_by = Value(weights, (query.shape[0], query.shape[2], query.shape[1], key.shape[1]))
    seen = e.op("MatMul", e.apply("probability", seen_by), e.arrange(value, _HEADS_FIRST))
    return Value(seen, (*query.shape[:3], value.shape[3]), "float32", _HEADS_FIRST), seen_by


def _attend_over(e: Emission, layer, heads: Sequence[Value], mask: Any) -> tuple[Value, Value]:
    """The same over any axes, with the einsum equations of the layer."""
    query, key, value = heads
    equation = score_equation(layer)
    scores = e.op("Einsum", key, e.op("Mul", query, score_scale(layer)), equation=equation)
    sizes = {a: d for term, x in zip(equation.split("->")[0].split(","), (key, query), strict=True)
             for a, d in zip(term, x.shape, strict=True)}  # fmt: skip
    spec = Value(scores, tuple(sizes[a] for a in equation.split("->")[1]))
    if mask is not None:
        scores = e.op("Where", mask, scores, MASKED_SCORE)
    weights = softmax(e, softmax_layer(layer), spec.with_onnx(scores))
    if mask is not None:
        weights = e.op("Where", mask, weights, 0.0)
    seen_by = spec.with_onnx(weights)
    seen = e.op("Einsum", e.apply("probability", seen_by), value, equation=value_equation(layer))
    return Value(seen, (*query.shape[:-1], value.shape[-1])), seen_by


@emitter("MultiHeadAttention")
def multi_head_attention(
    e: Emission,
    layer,
    query: Value,
    value: Value,
    key: Value | None = None,
    attention_mask: Value | None = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
    **masks: Value,
) -> Any:
    key = value if key is None else key
    window = sliding_window(layer)
    mask = _merged_mask(e, query, value, masks, use_causal_mask, window)
    heads = [
        _project(e, dense, x, name)
        for dense, x, name in (
            (layer.query_dense, query, "query"),
            (layer.key_dense, key, "key"),
            (layer.value_dense, value, "value"),
        )
    ]
    by_layer = layer.dropout > 0.0 or return_attention_scores or heads[0].rank != 4
    plain = heads[0].rank == 4 and (not by_layer or tuple(layer.attention_axes) == (1,))
    rank = None if mask is None else 3
    if attention_mask is not None:
        given = boolean(e, attention_mask)
        mask, rank = both(e, given.onnx, mask), max(given.rank, rank or 0)
    if mask is not None and rank is not None and plain:
        mask = _at_heads(e, mask, rank)
    elif mask is not None and rank is not None:
        axes = len(layer.attention_axes)
        scores_rank = len(score_equation(layer).split("->")[1])
        mask = _expanded(e, mask, rank, scores_rank, axes)
    if plain:
        seen, weights = _attend(e, heads, score_scale(layer), mask, by_layer)
    else:
        seen, weights = _attend_over(e, layer, heads, mask)
    if (gating := projection(layer, "gate")) is not None:
        gate = e.arrange(_project(e, gating, query, "gate"), seen.order)
        seen = seen.with_onnx(e.op("Mul", seen, gate))
    y = _project(e, layer.output_dense, seen, "attention_output")
    return [y, weights] if return_attention_scores else y


def _expanded(e: Emission, mask: Any, rank: int, scores_rank: int, axes: int) -> Any:
    """The mask with axes of size 1 for the axes between the batch and the attended axes."""
    if rank == scores_rank:
        return mask
    missing = scores_rank - rank
    first = max(rank - 2 * axes, 0)
    return e.op("Unsqueeze", mask, np.arange(first, first + missing, dtype=np.int64))


@emitter("GroupedQueryAttention", "GroupQueryAttention")
def grouped_query_attention(
    e: Emission,
    layer,
    query: Value,
    value: Value,
    key: Value | None = None,
    attention_mask: Value | None = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
    **masks: Value,
) -> Any:
    key = value if key is None else key
    mask = _merged_mask(e, query, value, masks, use_causal_mask, sliding_window(layer))
    rank = 3
    if attention_mask is not None:
        given = boolean(e, attention_mask)
        mask, rank = both(e, given.onnx, mask), max(given.rank, 3 if mask is not None else 0)
    queries = _project(e, projection(layer, "query"), query, "query")
    shared = [
        _repeated_heads(e, _project(e, projection(layer, name), x, name), layer.num_repeats)
        for x, name in ((key, "key"), (value, "value"))
    ]
    by_layer = layer.dropout > 0.0 or return_attention_scores
    mask = None if mask is None else _at_heads(e, mask, rank)
    seen, weights = _attend(e, [queries, *shared], score_scale(layer), mask, by_layer)
    if (gating := projection(layer, "gate")) is not None:
        gate = e.arrange(_project(e, gating, query, "gate"), seen.order)
        seen = seen.with_onnx(e.op("Mul", seen, gate))
    y = _project(e, projection(layer, "output"), seen, "attention_output")
    return [y, weights] if return_attention_scores else y


def _repeated_heads(e: Emission, x: Value, repeats: int) -> Value:
    if repeats == 1:
        return x
    heads = x.shape[2]
    assert heads is not None
    index = np.repeat(np.arange(heads, dtype=np.int64), repeats)
    return Value(e.op("Gather", x, index, axis=2), (*x.shape[:2], heads * repeats, x.shape[3]), x.dtype)


@emitter("Attention", "AdditiveAttention")
def attention(
    e: Emission,
    layer,
    inputs: Sequence[Value],
    mask: Sequence[Value | None] | None = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Any:
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 else value
    query_mask, value_mask = (mask[0], mask[1]) if mask else (None, None)
    scores = _scores(e, layer, query, key)
    seen = None if value_mask is None else unsqueeze(e, boolean(e, value_mask), [value_mask.rank - 1])
    if use_causal_mask:
        seen = both(e, seen, attention_window(e, query, key, True, None))
    if seen is not None:
        scores = e.op("Where", seen, scores, e.op("Add", scores, MASKED_SCORE))
    weights = e.op("Softmax", scores, axis=-1)
    probabilities = e.apply("probability", Value(weights, (*query.shape[:-1], key.shape[-2])))
    y = e.op("MatMul", probabilities, value)
    if query_mask is not None:
        y = e.op("Where", unsqueeze(e, boolean(e, query_mask), [query_mask.rank]), y, 0.0)
    return [e.output(y), e.output(weights, index=1)] if return_attention_scores else e.output(y)


def _scores(e: Emission, layer, query: Value, key: Value) -> ir.Value:
    scale = e.weight("scale")
    if getattr(layer, "score_mode", "") == "dot" and not isinstance(layer, keras.layers.AdditiveAttention):
        axes = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
        scores = e.op("MatMul", query, e.arrange(key, tuple(axes)))
        return scores if scale is None else e.op("Mul", scores, scale)
    total = e.op("Add", unsqueeze(e, query, [query.rank - 1]), unsqueeze(e, key, [key.rank - 2]))
    last = np.asarray([-1], np.int64)
    if isinstance(layer, keras.layers.AdditiveAttention):
        curved = e.op("Tanh", total)
        return e.op("ReduceSum", curved if scale is None else e.op("Mul", curved, scale), last, keepdims=0)
    curved = e.op("Tanh", total if scale is None else e.op("Mul", total, scale))
    return e.op("Mul", e.op("ReduceSum", curved, last, keepdims=0), e.weight("concat_score_weight"))
