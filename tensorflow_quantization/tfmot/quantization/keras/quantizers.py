"""`tfmot.quantization.keras.quantizers`: TFMOT's quantizers.

A model computes with quantizers of this package in place of these classes, see `quantizer_layers`. A quantizer of the
user's own computes by its `__call__`.
"""

from __future__ import annotations

import abc
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.quantizers import QuantizationScheme, numerics
from tensorflow_quantization.quantizers.activation import UNSEEN_RANGE
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize, float32

__all__ = [
    "AllValuesQuantizer",
    "FixedQuantizer",
    "LastValueQuantizer",
    "MovingAverageQuantizer",
    "Quantizer",
]

#: TFMOT's weight of earlier batches in a moving average.
_DECAY = 0.999


class Quantizer(abc.ABC):
    """Base class for a quantization algorithm. A subclass of the user's own runs in Keras and is not exported.

    Examples:
        >>> from tensorflow_quantization.tfmot.quantization.keras import quantizers
        >>> class Clip(quantizers.Quantizer):
        ...     def build(self, tensor_shape, name, layer):
        ...         return {}
        ...     def __call__(self, inputs, training, weights, **kwargs):
        ...         return keras.ops.clip(inputs, -1.0, 1.0)
        ...     def get_config(self):
        ...         return {}
        >>> float(Clip()(np.float32(2.5), training=False, weights={}))
        1.0
    """

    @abc.abstractmethod
    def build(self, tensor_shape: tuple[int | None, ...], name: str, layer: keras.layers.Layer) -> dict[str, Any]:
        """Returns the variables of the quantizer by name, made with `layer.add_weight`; a dict, may be empty."""

    @abc.abstractmethod
    def __call__(self, inputs: Any, training: bool | None, weights: dict[str, Any], **kwargs: Any) -> Any:
        """Returns `inputs` quantized, a tensor of the same shape. `weights` is what `build` returned."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`, with which `from_config` makes an equal object."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Quantizer:
        """Returns the object that has this `get_config`."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), *self.get_config().items()))


class _Following(Quantizer):
    """Base class of quantizers whose range follows training.

    Args:
        num_bits: int, 2 to 8.
        per_axis: bool; one scale for each output channel, for weights only.
        symmetric: bool; the zero point is 0.
        narrow_range: bool; leave out the lowest integer.
    """

    _start = (-UNSEEN_RANGE, UNSEEN_RANGE)

    def __init__(self, num_bits: int, per_axis: bool, symmetric: bool, narrow_range: bool):
        self.num_bits = num_bits
        self.per_axis = per_axis
        self.symmetric = symmetric
        self.narrow_range = narrow_range

    def scheme(self, axis: tuple[int, ...] | None = None) -> QuantizationScheme:
        """Returns the integers. `axis` is the channel axis of a per-axis quantizer."""
        return QuantizationScheme(self.num_bits, True, self.symmetric, self.narrow_range, axis)

    def build(self, tensor_shape, name, layer):
        shape = (tensor_shape[-1],) if self.per_axis and tensor_shape is not None else ()
        return {
            f"{end}_var": layer.add_weight(
                name=f"{name}_{end}",
                shape=shape,
                initializer=keras.initializers.Constant(value),
                trainable=False,
            )
            for end, value in zip(("min", "max"), self._start, strict=True)
        }

    def __call__(self, inputs, training, weights, **kwargs):
        scheme = self.scheme((-1,) if self.per_axis else None)
        x, variables = float32(inputs), (weights["min_var"], weights["max_var"])
        low, high = (ops.convert_to_tensor(variable) for variable in variables)
        if training:
            batch = (ops.reshape(limit, low.shape) for limit in numerics.weight_range(x, scheme))
            low, high = (ops.stop_gradient(value) for value in self._follow(low, high, *batch))
            for variable, value in zip(variables, (low, high), strict=True):
                variable.assign(value)
        return ops.cast(fake_quantize(x, *numerics.scale_from_range(low, high, scheme), scheme), inputs.dtype)

    def _follow(self, low, high, batch_low, batch_high):
        """Returns the range after a batch."""
        raise NotImplementedError

    def get_config(self):
        names = ("num_bits", "per_axis", "symmetric", "narrow_range")
        return {name: getattr(self, name) for name in names}


class LastValueQuantizer(_Following):
    """Quantizes a tensor in the range of its last batch; a weight in its present range.

    Args:
        num_bits: int, 2 to 8.
        per_axis: bool; one scale for each output channel, for weights only.
        symmetric: bool; the zero point is 0.
        narrow_range: bool; leave out the lowest integer.
    """

    def _follow(self, low, high, batch_low, batch_high):
        return batch_low, batch_high


class MovingAverageQuantizer(_Following):
    """Quantizes a tensor in the moving average of the ranges of its batches. Arguments as `LastValueQuantizer`."""

    def _follow(self, low, high, batch_low, batch_high):
        return batch_low + _DECAY * (low - batch_low), batch_high + _DECAY * (high - batch_high)


class AllValuesQuantizer(_Following):
    """Quantizes a tensor in the range of all batches. Arguments as `LastValueQuantizer`."""

    _start = (0.0, 0.0)

    def _follow(self, low, high, batch_low, batch_high):
        return ops.minimum(low, batch_low), ops.maximum(high, batch_high)


class FixedQuantizer(Quantizer):
    """Quantizes a tensor in a fixed range.

    Args:
        num_bits: int, 2 to 8.
        init_min, init_max: float, the limits of the range.
        narrow_range: bool; leave out the lowest integer.
    """

    def __init__(self, num_bits: int, init_min: float, init_max: float, narrow_range: bool):
        self.num_bits = num_bits
        self.init_min = init_min
        self.init_max = init_max
        self.narrow_range = narrow_range

    def scheme(self, axis: tuple[int, ...] | None = None) -> QuantizationScheme:
        """Returns the integers, with the scale and the zero point of the range."""
        free = QuantizationScheme(self.num_bits, symmetric=False, narrow_range=self.narrow_range)
        limits = np.float32(self.init_min), np.float32(self.init_max)
        scale, zero_point = numerics.scale_from_range(*limits, free, np)
        return QuantizationScheme(
            self.num_bits, symmetric=False, narrow_range=self.narrow_range, fixed=(float(scale), int(zero_point))
        )

    def build(self, tensor_shape, name, layer):
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        scheme = self.scheme()
        assert scheme.fixed is not None
        scale, zero_point = map(ops.convert_to_tensor, map(np.float32, scheme.fixed))
        return ops.cast(fake_quantize(float32(inputs), scale, zero_point, scheme), inputs.dtype)

    def get_config(self):
        names = ("num_bits", "init_min", "init_max", "narrow_range")
        return {name: getattr(self, name) for name in names}
