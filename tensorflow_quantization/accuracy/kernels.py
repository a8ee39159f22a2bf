"""`Kernel`: one quantized kernel of a model, whose integers a method can choose.

The chosen integers are stored in the kernel itself, as integer times scale. The scale comes from the greatest value of
each channel or block, which a method leaves as it is, or is learned. So quantizing the kernel again gives the chosen
integers, and nothing else needs to be saved: a copy, a file and later training all start from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np

from tensorflow_quantization.accuracy.products import ProductForm, product_form
from tensorflow_quantization.calibration.calibrate import check_calibrated
from tensorflow_quantization.model.weights import float32_array, merged_array, variable_of
from tensorflow_quantization.quantizers import WeightQuantizer, numerics
from tensorflow_quantization.quantizers.scale_groups import grouped, ungrouped
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, wrappers_in


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
        return (
            self.form.matrix(weight),
            self.form.matrix(np.broadcast_to(scale, weight.shape)),
            self.form.matrix(self._pinned(weight)),
        )

    def _pinned(self, weight: np.ndarray) -> np.ndarray:
        """Returns what scales come from: of weights that share one, the first greatest, or all if they are zeros."""
        if not self.quantizer.follows_weight:
            return np.zeros(weight.shape, bool)
        scheme = self.quantizer.scheme
        groups, axes = grouped(np.abs(weight), scheme, np)
        kept = [a for a in range(groups.ndim) if a not in axes]
        by_scale = groups.transpose(*kept, *axes)
        rows = by_scale.reshape(math.prod(by_scale.shape[: len(kept)]), -1)
        pinned = rows.max(axis=1, keepdims=True) <= numerics.SMALLEST_SCALE * scheme.qmax
        pinned = pinned | (np.arange(rows.shape[1]) == rows.argmax(axis=1)[:, None])
        pinned = pinned.reshape(by_scale.shape).transpose(np.argsort([*kept, *axes]))
        return ungrouped(pinned, weight.shape, scheme, np)

    def assign(self, matrix: np.ndarray) -> None:
        """Sets the kernel to a weight (G, K, M)."""
        variable = variable_of(self.wrapper.layer, self.name)
        change = self.form.kernel(matrix).astype(np.float32) - self.value  # low-rank factors stay as they are
        variable.assign(float32_array(variable) + change)


def kernels_of(layer: keras.layers.Layer, floating: bool = False) -> Iterator[Kernel]:
    """Yields the kernels in a layer or a model that are quantized to symmetric integers, each once.

    Args:
        layer: a layer or a model.
        floating: whether kernels of FP8 numbers count, too.
    """
    for wrapper in wrappers_in(layer):
        for name, quantizer in wrapper.weight_quantizers.items():
            form = product_form(wrapper.layer, name, tuple(variable_of(wrapper.layer, name).shape))
            scheme = quantizer.scheme
            if form is not None and scheme.symmetric and scheme.signed and (floating or not scheme.floating):
                yield Kernel(wrapper, name, quantizer, form)


def check_quantized(model: keras.Model, calibrated: bool) -> None:
    """Raises an error unless a model is the result of `quantize_model` and, on demand, calibrated.

    Raises:
        TypeError: it is no `keras.Model`.
        ValueError: no kernel is quantized, or an activation range is not set.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected the result of quantize_model, got {type(model).__name__}.")
    if not any(wrapper.weight_quantizers for wrapper in wrappers_in(model)):
        raise ValueError(f"Model {model.name!r} has no quantized kernels. Pass the result of quantize_model(model).")
    if calibrated:
        check_calibrated(model)
