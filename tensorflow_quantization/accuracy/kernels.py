"""`Kernel`: one quantized kernel of a model, whose integers a method can choose.

The chosen integers are stored in the kernel itself, as integer times scale. The scale comes from the greatest value of
each channel, which a method leaves as it is. So quantizing the kernel again gives the chosen integers, and nothing else
needs to be saved: a copy, a file and later training all start from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np

from tensorflow_quantization.accuracy.products import ProductForm, product_form
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.model.weights import float32_array, merged_array, variable_of
from tensorflow_quantization.quantizers import WeightQuantizer, numerics
from tensorflow_quantization.wrappers import BaseQuantizeWrapper


@dataclass(frozen=True)
class Kernel:
    """One quantized kernel.

    Attributes:
        wrapper: the wrapper that quantizes it.
        name: the attribute of the wrapped layer that holds it.
        quantizer: its `WeightQuantizer`.
        form: how it multiplies.
    """

    wrapper: BaseQuantizeWrapper
    name: str
    quantizer: WeightQuantizer
    form: ProductForm

    @property
    def value(self) -> np.ndarray:
        """The float kernel, float32; low-rank factors included."""
        return merged_array(self.wrapper.layer, self.name)

    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the weight, the scale and whether the scale needs the weight as it is, each (G, K, M)."""
        weight = self.value
        scale, _ = self.quantizer.parameters(weight)
        axes = numerics.reduced_axes(weight.ndim, self.quantizer.scheme)
        magnitude = np.abs(weight)
        pinned = magnitude >= np.max(magnitude, axis=axes, keepdims=True)  # also all of a channel of zeros
        return tuple(self.form.matrix(x) for x in (weight, np.broadcast_to(scale, weight.shape), pinned))  # type: ignore[return-value]

    def assign(self, matrix: np.ndarray) -> None:
        """Sets the kernel to a weight (G, K, M)."""
        variable = variable_of(self.wrapper.layer, self.name)
        change = self.form.kernel(matrix).astype(np.float32) - self.value  # low-rank factors stay as they are
        variable.assign(float32_array(variable) + change)


def kernels_of(layer: keras.layers.Layer) -> Iterator[Kernel]:
    """Yields the quantized kernels in a layer or a model, each once."""
    for wrapper in (layer, *sublayers(layer)):
        if isinstance(wrapper, BaseQuantizeWrapper):
            for name, quantizer in wrapper.weight_quantizers.items():
                form = product_form(wrapper.layer, name, tuple(variable_of(wrapper.layer, name).shape))
                if form is not None and quantizer.scheme.symmetric and quantizer.scheme.signed:
                    yield Kernel(wrapper, name, quantizer, form)
