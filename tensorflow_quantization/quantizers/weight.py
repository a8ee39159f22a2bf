"""`WeightQuantizer`: fake-quantizes a weight; the range is computed from the weight, or the step is learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.quantizers import numerics
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize, fake_quantize_learned, float32
from tensorflow_quantization.quantizers.scale_groups import grouped, spread
from tensorflow_quantization.quantizers.scheme import QuantizationScheme
from tensorflow_quantization.text.messages import must_be_one_of
from tensorflow_quantization.text.warn import converting

WEIGHT_RANGES = ("minmax", "learned")


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class WeightQuantizer(keras.layers.Layer):
    """Fake-quantizes a weight: rounds it to the integers of `scheme` and returns float32 of the same shape.

    The range is the least and the greatest value of the weight, per-channel if the scheme has an axis, and for each
    block of inputs if it has a block size. It is computed in each call, so there is nothing to store or calibrate. With
    `ranges="learned"`, the step is trained instead.

    Examples:
        >>> quantizer = WeightQuantizer(QuantizationScheme(axis=-1))
        >>> quantizer.integers(np.array([[1.0, 0.1], [-0.5, 0.02]]))  # a column is an output channel
        array([[127, 127],
               [-64,  25]], dtype=int8)

    Args:
        scheme: `QuantizationScheme`, or its config; `axis` names the channel axes, `None` is per-tensor.
        ranges: how the range follows training:

            - "minmax" (default): the least and the greatest value of the weight at each call.
            - "learned": each step is trained (LSQ, arXiv:1902.08153), from the start that `start` sets. Until then, the
              start is the step of "minmax".
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: `ranges` is unknown, or learned for integers that are not signed and symmetric.
    """

    steps: keras.Variable  # of a learned step: the start of each step; 0 before `start`
    step_change: keras.Variable  # the trained change, as a fraction of the start

    def __init__(self, scheme: QuantizationScheme, ranges: str = "minmax", **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.scheme = QuantizationScheme.from_config(scheme)
        self.ranges = check_weight_ranges(ranges)
        if self.learns and not (self.scheme.signed and self.scheme.symmetric):
            raise ValueError(f"Learned steps of weights need signed, symmetric integers, got {self.scheme}.")
        # Replaces quantization if set, as in an `ActivationQuantizer`: gets the weight and returns the output.
        self.observer: Callable[[Any], Any] | None = None
        self.built = not self.learns

    @property
    def learns(self) -> bool:
        """Whether the steps are trained weights, `ranges="learned"`."""
        return self.ranges == "learned"

    @property
    def follows_weight(self) -> bool:
        """Whether another weight gets other steps: they are not learned, or have no start yet."""
        return not self.learns or not self._array(self.steps).all()

    def build(self, weight_shape):
        if self.learns:
            groups, axes = grouped(np.empty(weight_shape, bool), self.scheme, np)
            shape = tuple(1 if axis in axes else size for axis, size in enumerate(groups.shape))
            self.steps = self.add_weight(
                name="steps", shape=shape, initializer="zeros", trainable=False, autocast=False
            )
            # The step is start x (1 + change). A change of a fraction lets an optimizer such as Adam, whose updates do
            # not depend on the size of the gradient, change small and large steps alike.
            self.step_change = self.add_weight(name="step_change", shape=shape, initializer="zeros", autocast=False)
        self.built = True

    def call(self, weight):
        if self.observer is not None:
            return self.observer(weight)
        weight = float32(weight)
        if not self.learns:
            scale, zero_point = numerics.scale_of_weight(ops.stop_gradient(weight), self.scheme)
            return fake_quantize(weight, self._spread(scale, weight), self._spread(zero_point, weight), self.scheme)
        start = self._start(ops.stop_gradient(weight))
        scale = numerics.learned_scale(start, self.step_change)
        elements = math.prod(weight.shape) / math.prod(scale.shape)
        gradient_scale = numerics.lsq_gradient_scale(elements, start, self.scheme)
        scale, gradient_scale = self._spread(scale, weight), self._spread(gradient_scale, weight)
        return fake_quantize_learned(weight, scale, ops.zeros_like(scale), self.scheme, gradient_scale)

    def _spread(self, numbers, weight, xp=ops):
        """Returns one number per scale so that it broadcasts to the weight."""
        return spread(numbers, tuple(weight.shape), self.scheme, xp)

    def _start(self, weight, xp=ops):
        """Returns the steps before training, one for each scale."""
        scale, _ = numerics.scale_of_weight(weight, self.scheme, xp)
        if not self.learns:
            return scale
        steps = ops.convert_to_tensor(self.steps) if xp is ops else self._array(self.steps)
        return xp.where(steps > 0, steps, scale)

    def _array(self, variable) -> np.ndarray:
        with converting():
            return ops.convert_to_numpy(variable)

    def start(self, weight: np.ndarray) -> None:
        """Sets each learned step to the step with the least squared error, from where training starts.

        Args:
            weight: float array in the shape that the quantizer was built for.
        """
        limit = numerics.least_squares_limit(np.asarray(weight, np.float32), self.scheme)
        self.steps.assign(numerics.scale_from_range(-limit, limit, self.scheme, np)[0])
        self.step_change.assign(np.zeros(limit.shape, "float32"))

    def scale(self, weight):
        """Returns the scale of a weight.

        Args:
            weight: float tensor or variable of any shape.

        Returns:
            A float32 tensor in the rank of `weight`; every axis that shares a scale has size 1. With blocks, it has the
            shape of `weight`.
        """
        start = self._start(float32(weight))
        return self._spread(numerics.learned_scale(start, self.step_change) if self.learns else start, weight)

    def scales(self, weight: np.ndarray) -> np.ndarray:
        """Returns each scale of a weight once.

        Examples:
            >>> quantizer = WeightQuantizer(QuantizationScheme(bits=4, axis=-1, block_size=16))
            >>> quantizer.scales(np.ones((40, 3))).shape  # 3 blocks of 3 channels
            (9,)

        Args:
            weight: float array of any shape.

        Returns:
            A float32 vector: the scales of the channels, or of the first block of all channels, then of the second.
        """
        return self._compact_parameters(np.asarray(weight, np.float32))[0].ravel()

    def parameters(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scale and the zero point of a weight, as the export writes them.

        Args:
            weight: float array of any shape.

        Returns:
            (scale, zero point): float32, and the dtype of the scheme. Both have the rank of `weight`; every axis that
            shares a scale has size 1. With blocks, both have the shape of `weight`.
        """
        weight = np.asarray(weight, np.float32)
        scale, zero_point = self._compact_parameters(weight)
        return self._spread(scale, weight, np), self._spread(zero_point, weight, np)

    def _compact_parameters(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns each scale and zero point once."""
        if self.learns:
            scale = numerics.learned_scale(self._start(weight, np), self._array(self.step_change), np)
            return scale, np.zeros(scale.shape, self.scheme.dtype)
        scale, zero_point = numerics.scale_of_weight(weight, self.scheme, np)
        return scale.astype(np.float32), zero_point.astype(self.scheme.dtype)

    def integers(self, weight: np.ndarray) -> np.ndarray:
        """Returns the quantized weight.

        Args:
            weight: float array of any shape.

        Returns:
            Integers in the shape of `weight` and the dtype of the scheme.
        """
        scale, zero_point = self.parameters(weight)
        q = numerics.quantize(np.asarray(weight, np.float32), scale, zero_point, self.scheme, np)
        return q.astype(self.scheme.dtype)

    def dequantized(self, weight: np.ndarray) -> np.ndarray:
        """Returns the real values of the quantized weight, as a runtime computes them from the file.

        Args:
            weight: float array of any shape.

        Returns:
            float32 in the shape of `weight`.
        """
        scale, zero_point = (np.float32(p) for p in self.parameters(weight))
        return numerics.dequantize(np.float32(self.integers(weight)), scale, zero_point)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "scheme": self.scheme.get_config(), "ranges": self.ranges}


def check_weight_ranges(ranges: str) -> str:
    """Returns `ranges` unchanged.

    Raises:
        ValueError: `ranges` is unknown.
    """
    if ranges not in WEIGHT_RANGES:
        raise ValueError(must_be_one_of("weight_ranges", WEIGHT_RANGES, ranges))
    return ranges
