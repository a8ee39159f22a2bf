"""Attention in a model for LiteRT: its projections in integers, and the rest in floats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from tensorflow_quantization.export.litert.affine import Affine
from tensorflow_quantization.export.litert.constants import (
    Step,
    constant_layer,
    constant_values,
    folded_layer,
    identity,
    plus_zero,
)
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import keras_mask, sublayers, with_changed_values
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.attention import ProjectedAttentionBaseQuantizeWrapper


@contextmanager
def float_values(graph: LayerGraph) -> Iterator[None]:
    """Within this context, the values and the returned scores of attention without projections have no scale.

    Else the converter would multiply integers, and round the softmax to LiteRT's own scale of it, as Keras does not.
    """
    called = [layer for call in graph.calls if call.is_layer for layer in (call.operation, *sublayers(call.operation))]
    with ExitStack() as contexts:
        for layer in called:
            if isinstance(layer, keras.layers.Attention):
                contexts.enter_context(with_changed_values(layer, lambda x: plus_zero(x, x)))
        yield


def is_projected(operation: Any) -> bool:
    """Whether this is attention whose projections, and nothing else within, are quantized."""
    return isinstance(operation, ProjectedAttentionBaseQuantizeWrapper) and operation.quantize_projections


def projected_attention(
    wrapper: ProjectedAttentionBaseQuantizeWrapper,
    inputs: list[Step],
    quantize: Callable[[ActivationQuantizer | None], Step],
    folded: Affine | None,
) -> Step:
    """A function that computes attention without its output quantizer.

    Args:
        wrapper: attention for which `is_projected` holds.
        inputs: for each input, what quantizes it.
        quantize: the step of a quantizer; the identity for `None`.
        folded: what is folded into the output projection; `None`: nothing.
    """
    parts = {
        name: _projection(part, quantize, folded if name == "output" else None) for name, part in wrapper.parts.items()
    }
    for name in ("value", "gate"):
        # Else the converter would multiply integers, and round softmax and sigmoid to LiteRT's own scales of them.
        if name in parts:
            parts[name] = _without_scale(parts[name])

    def step(query: Any, value: Any, key: Any = None, query_mask: Any = None, **kwargs: Any) -> Any:
        tensors = [query, value] if key is None else [query, value, key]
        returns_scores = kwargs.pop("return_attention_scores", False)
        kwargs.pop("training", None)
        for name, x in zip(("value_mask", "key_mask"), tensors[1:], strict=False):
            kwargs[name] = keras_mask(x) if kwargs.get(name) is None else kwargs[name]
        mask = wrapper.mask_of(tensors, keras_mask(query) if query_mask is None else query_mask, **kwargs)
        read = [quantize_input(x) for quantize_input, x in zip(inputs, tensors, strict=True)]
        outputs, scores = wrapper.attend(read, mask, parts, False, returns_scores)
        return (outputs, plus_zero(scores, scores)) if returns_scores else outputs

    return step


def _projection(
    part: BaseQuantizeWrapper, quantize: Callable[[ActivationQuantizer | None], Step], folded: Affine | None
) -> Step:
    (read,), written = map(quantize, part.input_quantizers), quantize(part.output_quantizer)
    if folded is not None:
        product = folded_layer(part, folded, identity)
    else:
        product = constant_layer(part.layer, constant_values(part), identity, not part.weight_quantizers)

    return lambda x: written(product(read(x)))


def _without_scale(part: Step) -> Step:
    def step(x: Any) -> Any:
        y = part(x)
        return plus_zero(y, y)

    return step
