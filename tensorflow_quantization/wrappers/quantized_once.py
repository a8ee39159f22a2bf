"""`quantized_once`: quantizes the weights of a model once for many batches."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import keras
import numpy as np

from tensorflow_quantization.model.keras_internals import own_variables, sublayers
from tensorflow_quantization.model.weights import merged, substitutes
from tensorflow_quantization.text.warn import converting
from tensorflow_quantization.wrappers.base import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.recurrent import RecurrentBaseQuantizeWrapper

#: The `call`s that call the layer with its weights replaced.
_CALLS = (BaseQuantizeWrapper.call, RecurrentBaseQuantizeWrapper.call)


@contextlib.contextmanager
def quantized_once(model: keras.Model) -> Iterator[None]:
    """Puts the quantized weights of a model into its variables for the time of the context.

    Wrappers then call their layers as they are: a batch costs what it costs the float model. Biases are not rounded,
    so that the model does not depend on the ranges that it has. Wrappers with a `call` of their own, and weights that
    several layers share, stay as they are.

    Args:
        model: a quantized model. Functions that Keras compiled within the context must not be used after it.
    """
    owners = Counter(id(variable) for layer in sublayers(model) for variable in own_variables(layer))
    before: list[tuple[keras.Variable, np.ndarray]] = []
    wrappers: list[BaseQuantizeWrapper] = []
    try:
        for wrapper in sublayers(model):
            if isinstance(wrapper, BaseQuantizeWrapper) and type(wrapper).call in _CALLS:
                values = [
                    pair
                    for kernel, quantizer in wrapper.weight_quantizers.items()
                    for pair in substitutes(wrapper.layer, kernel, quantizer(merged(wrapper.layer, kernel)))
                ]
                if all(owners[id(variable)] == 1 for variable, _ in values):
                    with converting():  # a copy: the array of a backend may be a view of the variable
                        before += [(v, np.array(keras.ops.convert_to_numpy(v))) for v, _ in values]
                    for variable, value in values:
                        variable.assign(value)
                    wrapper.is_quantized = True
                    wrappers.append(wrapper)
        yield
    finally:
        for wrapper in wrappers:
            wrapper.is_quantized = False
        for variable, value in before:
            variable.assign(value)
