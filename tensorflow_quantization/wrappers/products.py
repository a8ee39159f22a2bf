"""Which layers multiply by matrices: their kernels can be quantized in blocks of inputs."""

from __future__ import annotations

import math
from typing import Any

import keras

from tensorflow_quantization.model.equation import Equation
from tensorflow_quantization.model.keras_classes import computes_like
from tensorflow_quantization.model.keras_internals import projection
from tensorflow_quantization.quantizers import QuantizationScheme

#: The projections of attention layers; not every class has each.
PROJECTIONS = ("query", "key", "value", "gate", "output")
#: The layers, for error messages.
WITH_BLOCKS = "Dense, EinsumDense with a matrix product as its equation, MultiHeadAttention and GroupQueryAttention"


def summed_inputs(layer: Any) -> tuple[int, ...]:
    """Returns how many inputs an output of each product of a layer sums.

    Examples:
        >>> dense = keras.layers.Dense(3)
        >>> dense.build((None, 40))
        >>> summed_inputs(dense), summed_inputs(keras.layers.Conv2D(3, 3))
        ((40,), ())

    Args:
        layer: a layer that is built, or an operation.

    Returns:
        One number for each kernel; empty for a layer that does not multiply by matrices.
    """
    if isinstance(layer, keras.layers.EinsumDense):
        equation = Equation.parse(layer.equation, layer.input_spec.ndim)
        sizes = dict(zip(equation.kernel, layer.kernel.shape, strict=True))
        return (math.prod(sizes[axis] for axis in equation.summed),) if equation.is_product else ()
    if isinstance(layer, keras.layers.Dense):
        return (layer.kernel.shape[0],)
    if computes_like(layer, "MultiHeadAttention") or computes_like(layer, "GroupedQueryAttention"):
        parts = (projection(layer, name) for name in PROJECTIONS)
        return tuple(size for part in parts if part is not None for size in summed_inputs(part))
    return ()


def check_has_blocks(layer: keras.layers.Layer, scheme: QuantizationScheme) -> None:
    """Raises: ValueError: the scheme has blocks, and the layer, which is built, cannot have them."""
    if scheme.block_size is not None and not summed_inputs(layer):
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} cannot have weights in blocks, block_size={scheme.block_size}: "
            f"these can: {WITH_BLOCKS}."
        )
