"""The wrappers of attention layers.

Attention has two products of activations: queries x keys, whose softmax is the probabilities, and probabilities x
values. Additive scores are no product. Most attention layers also project the inputs and the result by matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
from keras import ops

from tensorflow_quantization.model.keras_classes import computes_like
from tensorflow_quantization.model.keras_internals import (
    attention_scores,
    dropout_layer,
    keras_mask,
    masked_softmax,
    merged_mask,
    projection,
    remove_keras_mask,
    score_equation,
    score_mask,
    score_scale,
    softmax_layer,
    value_equation,
)
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme
from tensorflow_quantization.wrappers.base import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.bias import named_quantizer
from tensorflow_quantization.wrappers.layers import EinsumDenseQuantizeWrapper
from tensorflow_quantization.wrappers.products import PROJECTIONS

#: The projections whose outputs are operands of a product of activations.
_FACTORS = ("query", "key", "value")


class AttentionBaseQuantizeWrapper(BaseQuantizeWrapper):
    """Base class of wrappers for attention layers: fake-quantizes the operands of the two products.

    The layer is computed step by step, since the backend's fused attention cannot quantize the probabilities. Returned
    attention scores (`return_attention_scores=True`) stay float.

    Args:
        layer: the layer to wrap.
        quantize_products: bool; quantize the operands of the products within the layer. Default `True`.
        factor_scheme: `QuantizationScheme` of the projected queries, keys and values, or its config. Default:
            `input_scheme`. The probabilities always use `input_scheme` with `symmetric=True`.
        **kwargs: arguments of `BaseQuantizeWrapper`.

    Attributes:
        probability_quantizer: the `ActivationQuantizer` of the probabilities, before dropout; `None` until the layer is
            built, or with `quantize_products=False`.
    """

    def __init__(
        self,
        layer,
        *,
        quantize_products: bool = True,
        factor_scheme: QuantizationScheme | dict | None = None,
        **kwargs,
    ):
        super().__init__(layer, **kwargs)
        self.quantize_products = quantize_products
        self.factor_scheme = QuantizationScheme.from_config(factor_scheme or self.input_scheme)
        self.probability_quantizer: ActivationQuantizer | None = None

    def build(self, input_shape=None):
        super().build(input_shape)
        if self.quantize_products:
            scheme = replace(self.input_scheme, symmetric=True)
            self.probability_quantizer = self._activation_quantizer(scheme, "probability_quantizer")

    def _inner_quantizers(self):
        return [self.probability_quantizer] if self.probability_quantizer is not None else []

    def _rounded(self, probabilities, training):
        if self.probability_quantizer is None:
            return probabilities
        return self.probability_quantizer(probabilities, training=training)

    def _outputs(self, outputs, scores, training, return_scores: bool):
        """Returns the outputs of the layer, quantized if there is an output quantizer, and the scores on request."""
        if self.output_quantizer is not None:
            outputs = self.output_quantizer(outputs, training=training)
        return (outputs, scores) if return_scores else outputs

    def compute_output_spec(self, *args, **kwargs):
        """Returns the layer's output spec: quantization changes neither shape nor dtype."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def get_config(self):
        config = super().get_config()
        config.update(quantize_products=self.quantize_products, factor_scheme=self.factor_scheme.get_config())
        return config


class AttentionQuantizeWrapper(AttentionBaseQuantizeWrapper):
    """`keras.layers.Attention` and `AdditiveAttention`: fake-quantizes the inputs and the probabilities.

    Of additive scores, targets choose the values alone. Without keys of their own, these are the keys, too.
    """

    @classmethod
    def suits(cls, layer):
        return computes_like(layer, "Attention", "AdditiveAttention")

    def call(  # type: ignore[override]
        self, inputs, mask=None, training=None, return_attention_scores=False, use_causal_mask=False
    ):
        """Returns the outputs of the layer; the arguments are the same as in the layer's `call`."""
        layer: Any = self.layer
        query, value, *keys = self.quantized_inputs(inputs, training)
        query_mask, value_mask = (mask[0], mask[1]) if mask else (None, None)
        scores = attention_scores(layer, query, keys[0] if keys else value)
        seen = score_mask(layer, scores, value_mask, use_causal_mask)
        if seen is not None:
            seen = ops.expand_dims(seen, -2) if len(seen.shape) == 2 else seen
            scores = ops.where(seen, scores, scores + ops.cast(_lowest(scores), scores.dtype))
        scores = ops.softmax(scores, axis=-1)
        probabilities = self._rounded(scores, training)
        if training and layer.dropout > 0:
            probabilities = keras.random.dropout(probabilities, layer.dropout, seed=layer.seed_generator)
        outputs = ops.matmul(probabilities, value)
        if query_mask is not None:
            outputs = ops.where(ops.expand_dims(query_mask, -1), outputs, ops.zeros_like(outputs))
        return self._outputs(outputs, scores, training, return_attention_scores)


class ProjectedAttentionBaseQuantizeWrapper(AttentionBaseQuantizeWrapper):
    """Base class of wrappers for attention layers with projections.

    Fake-quantizes the inputs (query, value, and key if it is given), the kernels of the projections, the operands of
    both products, and the input of the output projection.

    Args:
        layer: the layer to wrap.
        quantize_projections: bool, with `quantize_products=False`; quantize what the projections read and write within
            the layer, for a runtime that computes these in integers and both products in float. Default `False`.
        bias_inputs: for each input, the path of the layer that has its quantizer, as `bias_input` of other wrappers;
            `None` where there is none. Default: no input has one.
        **kwargs: arguments of `AttentionBaseQuantizeWrapper`.

    Raises:
        ValueError: both `quantize_projections` and `quantize_products`.

    Attributes:
        parts: dict of wrappers of the projections: "query", "key", "value", "output", and "gate" if the layer has it.
    """

    def __init__(self, layer, *, quantize_projections: bool = False, bias_inputs: Sequence[str | None] = (), **kwargs):
        super().__init__(layer, **kwargs)
        if quantize_projections and self.quantize_products:
            raise ValueError("quantize_projections=True is for quantize_products=False: the products have all of it.")
        self.quantize_projections = quantize_projections
        self.bias_inputs = tuple(bias_inputs)

    def build(self, query_shape, value_shape, key_shape=None):  # type: ignore[override]
        if not self.layer.built:
            self.layer.build(query_shape, value_shape, key_shape)
        super().build([query_shape, value_shape] if key_shape is None else [query_shape, value_shape, key_shape])
        for name in PROJECTIONS:
            dense = projection(self.layer, name)
            if dense is not None:
                self.parts[name] = self._wrap(name, dense)

    def _wrap(self, name: str, dense: keras.layers.EinsumDense) -> EinsumDenseQuantizeWrapper:
        within = self.quantize_products or self.quantize_projections
        # The activation of a gate is no part of an integer kernel.
        weights = self.quantize_weights and not (self.quantize_projections and name == "gate")
        wrapper = EinsumDenseQuantizeWrapper(
            dense,
            quantize_inputs=within and name == "output",
            quantize_weights=weights,
            input_scheme=self.input_scheme,
            weight_scheme=self.weight_scheme,
            output_scheme=self.factor_scheme if within and name in _FACTORS else None,
            ranges=self.ranges,
            weight_ranges=self.weight_ranges,
            frozen=self._frozen,
            target=self.target,
        )
        wrapper.build((None,) * dense.input_spec.ndim)
        if self.quantize_projections and name != "output":
            wrapper.reads = partial(self._quantizer_read_by, name)
        return wrapper

    def _quantizer_read_by(self, name: str) -> ActivationQuantizer | None:
        """Returns the quantizer of the input that a projection multiplies, here or before this layer."""
        index = {"value": 1, "key": len(self.input_quantizers) - 1}.get(name, 0)
        own, paths = self.input_quantizers[index], self.bias_inputs
        path = paths[index] if index < len(paths) else None
        return own if own is not None or path is None else named_quantizer(self, path)

    def call(  # type: ignore[override]
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        """Returns the outputs of the layer; the arguments are the same as in the layer's `call`."""
        inputs = [query, value] if key is None else [query, value, key]
        if len(inputs) != len(self.input_quantizers):
            built = len(self.input_quantizers)
            raise ValueError(
                f"Layer {self.layer.name!r} is called with {len(inputs)} tensors, and was built with {built}. Each "
                "input has a quantizer: pass the key in all calls, or in none."
            )
        mask = self.mask_of(
            inputs,
            query_mask,
            value_mask=value_mask,
            key_mask=key_mask,
            attention_mask=attention_mask,
            use_causal_mask=use_causal_mask,
        )
        inputs = self.quantized_inputs(inputs, training)
        outputs, scores = self.attend(inputs, mask, self.parts, training, return_attention_scores)
        return self._outputs(outputs, scores, training, return_attention_scores)

    def mask_of(self, inputs, query_mask, **masks):
        """Returns the mask of a call, from its inputs, the mask of its queries and its other masks; or `None`."""
        query, value, *_ = inputs
        return merged_mask(self.layer, query, value, query_mask=self._query_mask(inputs, query_mask), **masks)

    def attend(self, inputs, mask, parts: Mapping[str, Callable[[Any], Any]], training, return_scores: bool):
        """Returns the outputs and the scores.

        Args:
            inputs: the query, the value and the key, if it is given, as the projections read them.
            mask: the result of `mask_of`.
            parts: the projections by name, as functions.
            training: bool or `None`.
            return_scores: whether the caller returns the scores, which Keras then computes in another way.
        """
        query, value, *keys = inputs
        key = keys[0] if keys else value
        gate = parts["gate"](query) if "gate" in parts else None
        query, key, value = (parts[name](x) for name, x in zip(_FACTORS, (query, key, value), strict=True))
        seen, scores = self._attend(query, key, value, mask, training, return_scores)
        return parts["output"](seen if gate is None else seen * gate), scores

    def _query_mask(self, inputs, query_mask):
        """Returns the mask of the queries that the layer applies."""
        return query_mask

    def _attend(self, query, key, value, mask, training, return_scores: bool):
        """Returns the weighted values (batch, queries, heads, size) and the softmax (batch, heads, queries, values)."""
        layer: Any = self.layer
        # Keras chooses between two code paths, which differ for a query whose mask excludes all values.
        step_by_step = dropout_layer(layer).rate > 0.0 or return_scores or len(query.shape) != 4
        scores = self._softmax(self._products(query, key), mask, step_by_step)
        probabilities = dropout_layer(layer)(self._rounded(scores, training), training=training)
        return ops.einsum(value_equation(layer), probabilities, self._repeated(value)), scores

    def _products(self, query, key):
        """Returns the scaled products of queries and keys, the scores before mask and softmax."""
        raise NotImplementedError

    def _repeated(self, heads):
        """Returns keys or values, repeated once for each query head that shares them."""
        return heads

    def _softmax(self, scores, mask, step_by_step: bool):
        layer: Any = self.layer
        if mask is None or step_by_step:
            return masked_softmax(layer, scores, mask)
        # As in `keras.ops.dot_product_attention`: if the mask excludes all values of a query, all get equal weight.
        while len(mask.shape) < len(scores.shape):
            mask = ops.expand_dims(mask, -3)
        return softmax_layer(layer)(ops.where(ops.cast(mask, "bool"), scores, ops.cast(_lowest(scores), scores.dtype)))

    def get_config(self):
        config = super().get_config()
        config.update(quantize_projections=self.quantize_projections, bias_inputs=list(self.bias_inputs))
        return config


class MultiHeadAttentionQuantizeWrapper(ProjectedAttentionBaseQuantizeWrapper):
    """`keras.layers.MultiHeadAttention`."""

    @classmethod
    def suits(cls, layer):
        return computes_like(layer, "MultiHeadAttention")

    def _query_mask(self, inputs, query_mask):
        # `MultiHeadAttention` reads the mask attached to the tensor, ignores the argument, and removes attached masks.
        query_mask = keras_mask(inputs[0])
        for x in inputs:
            remove_keras_mask(x)
        return query_mask

    def _products(self, query, key):
        layer: Any = self.layer
        return ops.einsum(score_equation(layer), key, query) * score_scale(layer)


class GroupedQueryAttentionQuantizeWrapper(ProjectedAttentionBaseQuantizeWrapper):
    """`keras.layers.GroupQueryAttention`."""

    @classmethod
    def suits(cls, layer):
        return computes_like(layer, "GroupedQueryAttention")

    def _products(self, query, key):
        layer: Any = self.layer
        return ops.einsum(score_equation(layer), query, self._repeated(key)) * score_scale(layer)

    def _repeated(self, heads):
        return ops.repeat(heads, self.layer.num_repeats, axis=2)


def _lowest(scores) -> float:
    """Returns the number by which Keras masks scores."""
    return -3e4 if keras.backend.standardize_dtype(scores.dtype) == "float16" else -1e9
