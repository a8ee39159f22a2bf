"""The quantizers of this package that compute what the quantizers of a `QuantizeConfig` say.

| TFMOT | here |
|---|---|
| `LastValueQuantizer` of a weight | `WeightQuantizer`: the range of the weight at each call |
| `MovingAverageQuantizer`, `LastValueQuantizer` of an activation | `ActivationQuantizer` with ranges "ema", "last" |
| `AllValuesQuantizer` of an activation | `AllValuesActivationQuantizer` |
| `FixedQuantizer` of an activation | `ActivationQuantizer` with a fixed scale |
| any other class | `OwnQuantizer`, which calls it |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.quantizers.scheme import MAX_BITS, MIN_BITS
from tensorflow_quantization.tfmot.quantization.keras.quantizers import (
    AllValuesQuantizer,
    FixedQuantizer,
    LastValueQuantizer,
    MovingAverageQuantizer,
    Quantizer,
)
from tensorflow_quantization.wrappers.channels import output_channel_axis

_OF_PACKAGE = (AllValuesQuantizer, FixedQuantizer, LastValueQuantizer, MovingAverageQuantizer)


class AllValuesActivationQuantizer(ActivationQuantizer):
    """An `ActivationQuantizer` whose range is the range of all batches."""

    def _follow(self, x, rectify):
        range_, batch = ops.convert_to_tensor(self.range), self._batch_range(x, rectify)
        wider = ops.stack([ops.minimum(range_[0], batch[0]), ops.maximum(range_[1], batch[1])])
        self.range.assign(ops.where(ops.convert_to_tensor(self.batches) > 0, wider, batch))
        self.batches.assign(self.batches + 1.0)


class OwnQuantizer(keras.layers.Layer):
    """Calls a `Quantizer` of the user's own, and owns the variables that it makes.

    Args:
        quantizer: the `Quantizer`.
        tensor_shape: the shape of the tensor, a tuple.
        what: the name of the tensor, "kernel" for example.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, quantizer: Quantizer, tensor_shape: tuple[int | None, ...], what: str, **kwargs):
        super().__init__(**kwargs)
        self.quantizer = quantizer
        self.quantizer_weights = dict(quantizer.build(tensor_shape, what, self) or {})
        self.built = True

    def add_weight(self, name=None, shape=None, dtype=None, initializer=None, **kwargs):  # Keras 2 has this order
        if not isinstance(name, str | None):  # Keras 3 has the shape first, then the initializer
            name, shape, initializer = None, name, shape if initializer is None else initializer
        return super().add_weight(shape=shape or (), initializer=initializer, dtype=dtype, name=name, **kwargs)

    def call(self, inputs, training=None):
        return self.quantizer(inputs, training=training, weights=self.quantizer_weights)


def weight_quantizer(
    quantizer: Quantizer, layer: keras.layers.Layer, kernel: str, shape: tuple[int, ...], **kwargs: Any
) -> WeightQuantizer | OwnQuantizer:
    """Returns the quantizer layer of a weight.

    Args:
        quantizer: what the config returned for the weight.
        layer: the layer that has the weight.
        kernel: the name of the weight.
        shape: of the weight.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: see `check_weight_quantizer`.
    """
    check_weight_quantizer(quantizer, layer, kernel)
    if not isinstance(quantizer, LastValueQuantizer) or _is_own(quantizer):
        return OwnQuantizer(quantizer, shape, kernel, **kwargs)
    axis = output_channel_axis(layer, kernel) if quantizer.per_axis else None
    made = WeightQuantizer(quantizer.scheme(axis), **kwargs)
    made.build(shape)
    return made


def activation_quantizer(
    quantizer: Quantizer,
    layer: keras.layers.Layer,
    what: str,
    shape: Callable[[], tuple[int | None, ...]],
    **kwargs: Any,
) -> ActivationQuantizer | OwnQuantizer:
    """Returns the quantizer layer of an activation or output.

    Args:
        quantizer: what the config returned for it.
        layer: the layer that computes it.
        what: "activation" or "output".
        shape: returns its shape.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: see `check_activation_quantizer`.
    """
    check_activation_quantizer(quantizer, layer, what)
    if _is_own(quantizer):
        return OwnQuantizer(quantizer, shape(), what, **kwargs)
    scheme = quantizer.scheme()  # type: ignore[attr-defined]  # all classes of this package have it
    if isinstance(quantizer, AllValuesQuantizer):
        return AllValuesActivationQuantizer(scheme, **kwargs)
    return ActivationQuantizer(scheme, "last" if isinstance(quantizer, LastValueQuantizer) else "ema", **kwargs)


def check_weight_quantizer(quantizer: Any, layer: keras.layers.Layer, kernel: str) -> None:
    """Raises: ValueError: it is no `Quantizer`, or has a range for activations, or bits that this package has not."""
    _check(quantizer, layer, kernel)
    if not _is_own(quantizer) and not isinstance(quantizer, LastValueQuantizer):
        raise ValueError(
            f"The {kernel} of layer {layer.name!r} has a {type(quantizer).__name__}, and the range of a weight comes "
            "from the weight itself. Return a LastValueQuantizer."
        )


def check_activation_quantizer(quantizer: Any, layer: keras.layers.Layer, what: str) -> None:
    """Raises: ValueError: it is no `Quantizer`, or is per axis, or has bits that this package has not."""
    _check(quantizer, layer, what)
    if not _is_own(quantizer) and getattr(quantizer, "per_axis", False):
        raise ValueError(
            f"The {what} of layer {layer.name!r} has a {type(quantizer).__name__} with per_axis=True, and activations "
            "have one scale. Pass per_axis=False."
        )


def _is_own(quantizer: Quantizer) -> bool:
    return type(quantizer) not in _OF_PACKAGE


def _check(quantizer: Any, layer: keras.layers.Layer, what: str) -> None:
    if not isinstance(quantizer, Quantizer):
        raise ValueError(
            f"The QuantizeConfig of layer {layer.name!r} returns {quantizer!r} for the {what}. Return a Quantizer, "
            "such as LastValueQuantizer(num_bits=8, per_axis=False, symmetric=True, narrow_range=True)."
        )
    if _is_own(quantizer):
        return
    bits = quantizer.num_bits  # type: ignore[attr-defined]
    if not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(
            f"The {what} of layer {layer.name!r} has a {type(quantizer).__name__} with num_bits={bits!r}. Pass "
            f"{MIN_BITS} to {MAX_BITS} bits, or leave the {what} out to keep it in float."
        )
