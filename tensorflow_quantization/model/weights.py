"""The weights of a layer by name: which variable holds a weight, and its value.

A weight of a layer within the layer is named by its path: "cell.kernel" of an LSTM, "cell.cells.0.kernel" of a stack.

After `layer.enable_lora(rank)` a kernel is a sum of variables: base + alpha / rank * a @ b. The base is frozen,
and the factors `a` and `b` are trained (LoRA, arXiv:2106.09685).
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.model.keras_internals import lora_variables, sublayers
from tensorflow_quantization.text.warn import converting

#: Attributes of Keras' layers that can have low-rank factors.
_WITH_FACTORS = ("kernel", "embeddings")


def merged_weights(layer: keras.layers.Layer) -> list[str]:
    """Returns the names of the layer's weights that have low-rank factors; no layer of Keras has more than one."""
    return [name for name in _WITH_FACTORS if lora_variables(layer, name)]


def owner_of(layer: keras.layers.Layer, name: str) -> tuple[keras.layers.Layer, str]:
    """Returns the layer that has a weight as its attribute, `layer` or a layer within it, and the attribute's name."""
    *path, attribute = name.split(".")

    def step(holder: Any, part: str) -> Any:
        return holder[int(part)] if part.isdigit() else getattr(holder, part)

    return reduce(step, path, layer), attribute


def variable_of(layer: keras.layers.Layer, name: str) -> keras.Variable:
    """Returns the variable that holds a weight; the base of a weight with low-rank factors."""
    return _variables(*owner_of(layer, name))[0]


def _variables(layer: keras.layers.Layer, name: str) -> tuple[keras.Variable, ...]:
    """Returns the variables of a weight of this layer: the base, and its low-rank factors if it has them."""
    return lora_variables(layer, name) or (getattr(layer, name),)


def merged(layer: keras.layers.Layer, name: str) -> Any:
    """Returns the value of a weight, a tensor in the dtype of its variable; float32 with low-rank factors.

    Keras' attribute would round a weight with factors to the compute dtype.
    """
    layer, name = owner_of(layer, name)
    variable, *factors = _variables(layer, name)
    if not factors:
        return ops.convert_to_tensor(variable)
    base, a, b = (ops.cast(v, "float32") for v in (variable, *factors))
    return base + layer.lora_alpha / layer.lora_rank * ops.matmul(a, b)


def float32_array(x: Any) -> np.ndarray:
    """Returns a variable or tensor of any backend as a float32 array: NumPy cannot reduce bfloat16."""
    with converting():
        return ops.convert_to_numpy(ops.cast(ops.convert_to_tensor(x), "float32"))


def merged_array(layer: keras.layers.Layer, name: str) -> np.ndarray:
    """Returns the value of a weight, a float32 array that is computed alike on every backend."""
    layer, name = owner_of(layer, name)
    base, *factors = map(float32_array, _variables(layer, name))
    if not factors:
        return base
    return base + np.float32(layer.lora_alpha / layer.lora_rank) * np.matmul(*factors)


def substitutes(layer: keras.layers.Layer, name: str, value: Any) -> list[tuple[keras.Variable, Any]]:
    """Returns values for the variables of a weight, with which the layer computes as if `value` were the weight.

    Returns:
        Pairs of a variable and its value, for a `keras.StatelessScope`. Low-rank factors are zero: `value` has them.
    """
    base, *factors = _variables(*owner_of(layer, name))
    return [(base, value), *((factor, ops.zeros(factor.shape, factor.dtype)) for factor in factors)]


def mode_of_keras(operation: Any) -> str | None:
    """Returns the mode in which Keras' own `quantize` changed a layer or a layer within it; `None` if it did not.

    The weights of such a layer are integers with scales of their own: nothing here may read them as its weights.
    """
    layers = (operation, *sublayers(operation)) if isinstance(operation, keras.layers.Layer) else ()
    return next((layer.quantization_mode for layer in layers if layer.quantization_mode), None)
