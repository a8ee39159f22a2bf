"""`ActivationQuantizer`: fake-quantizes a tensor that flows through the model, with a range that it holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.quantizers import numerics
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize, fake_quantize_learned, float32
from tensorflow_quantization.quantizers.observers import OBSERVERS
from tensorflow_quantization.quantizers.scheme import QuantizationScheme
from tensorflow_quantization.text.messages import must_be_one_of

RANGES = (*OBSERVERS, "learned")
#: The range of a quantizer that never saw data, in both directions.
UNSEEN_RANGE = 6.0


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class ActivationQuantizer(keras.layers.Layer):
    """Fake-quantizes its input per tensor.

    The range starts at ±6. While training it follows the batches (`ranges`), unless it is `frozen`, or the layer is not
    `trainable` and already has a range. `calibrate` sets it.

    Example:
        >>> quantizer = ActivationQuantizer(QuantizationScheme())
        >>> quantizer.set_range(-1.0, 2.54)
        >>> scale, zero_point = quantizer.parameters()
        >>> f"{scale:.3f}, {zero_point}"
        '0.020, 0'

    Args:
        scheme: the integers; per tensor.
        ranges: "ema" (moving average), "last" (last batch) or "learned": the step size is a trained weight that starts
            from the first batch, at 2 * mean|x| / sqrt(qmax) as in LSQ (arXiv:1902.08153), or from calibration.
        frozen: the range stays as it is.
        same_as: a quantizer whose range this one has too, and leaves alone; scheme and `ranges` must be the same.
        reasons: what `quantize_model` decided, for `describe`: {path: {"code": ..., "text": ...}}, of this layer and
            maybe of layers that it left alone.

    Raises:
        ValueError: unknown `ranges`, or a scheme with a channel axis.
    """

    range: keras.Variable  # least and greatest value
    batches: keras.Variable  # how many it comes from
    step_change: keras.Variable

    def __init__(
        self,
        scheme: QuantizationScheme,
        ranges: str = "ema",
        frozen: bool = False,
        *,
        same_as: ActivationQuantizer | None = None,
        reasons: dict[str, dict[str, str]] | None = None,
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)  # the output has the dtype of the input
        self.scheme = QuantizationScheme.from_config(scheme)
        if self.scheme.axis is not None:
            raise ValueError(f"Activations are quantized per tensor; the scheme has axis {self.scheme.axis}.")
        self.ranges = check_ranges(ranges)
        self.frozen = frozen
        self.reasons = dict(reasons or {})
        # Stands in for quantization, outside of compiled functions: a function of the tensor that returns what goes on.
        self.observer: Callable[[Any], Any] | None = None
        self.supports_masking = True
        self.has_own_range = same_as is None
        if same_as is None:
            self._add_range()
        else:
            self.range, self.batches = same_as.range, same_as.batches
            if self.learns:
                self.step_change = same_as.step_change
        self.built = True

    def _add_range(self):
        self.range = self.add_weight(
            name="range", shape=(2,), initializer=_initial_range, trainable=False, autocast=False
        )
        self.batches = self.add_weight(name="batches", initializer="zeros", trainable=False, autocast=False)
        if self.learns:
            # What training added to the step size. Kept apart from its start, because a backend may forbid to assign
            # to a trained weight within a training step; the gradient is the same.
            self.step_change = self.add_weight(name="step_change", initializer="zeros", autocast=False)

    def call(self, x, training=None):
        if self.observer is not None:
            return self.observer(x)
        x32 = float32(x)
        if training and self.has_own_range and not self.frozen and self.scheme.fixed is None:
            self._follow(ops.stop_gradient(x32))
        scale, zero_point = self._scale_and_zero_point()
        if self.learns:
            elements = math.prod(d for d in x.shape[1:] if d is not None)
            gradient_scale = 1.0 / math.sqrt(max(elements, 1) * self.scheme.qmax)
            y = fake_quantize_learned(x32, scale, zero_point, self.scheme, gradient_scale)
        else:
            y = fake_quantize(x32, scale, zero_point, self.scheme)
        return ops.cast(y, x.dtype)

    def _follow(self, x):
        """Move the range towards that of a batch."""
        batches = ops.convert_to_tensor(self.batches)
        range_ = ops.convert_to_tensor(self.range)
        if self.learns:
            updated = ops.where(batches > 0, range_, self._lsq_start(x))
        else:
            batch_range = ops.stack([ops.min(x), ops.max(x)])
            updated = OBSERVERS[self.ranges](range_, batch_range, batches)
            if not self.trainable:  # as a frozen BatchNormalization keeps its statistics
                updated = ops.where(batches > 0, range_, updated)
        self.range.assign(updated)
        self.batches.assign(batches + 1.0)

    def _lsq_start(self, x):
        """The range of this batch, widened or narrowed until its step is LSQ's first."""
        step = 2.0 * ops.mean(ops.abs(x)) / math.sqrt(self.scheme.qmax)
        batch_range = ops.stack([ops.min(x), ops.max(x)])
        scale, _ = numerics.scale_from_range(batch_range[0], batch_range[1], self.scheme)
        return batch_range * (step / scale)

    def _scale_and_zero_point(self):
        scale, zero_point = numerics.scale_from_range(self.range[0], self.range[1], self.scheme)
        if self.learns:
            scale = _learned_scale(scale, self.step_change, ops)
        return scale, zero_point

    def scale(self):
        """The scale as it is now, a float32 tensor."""
        return self._scale_and_zero_point()[0]

    def is_seen(self):
        """`seen` as a tensor, for use in compiled functions."""
        return ops.ones((), "bool") if self.scheme.fixed is not None else ops.convert_to_tensor(self.batches) > 0

    @property
    def learns(self) -> bool:
        """Whether the step size is a trained weight."""
        return self.ranges == "learned" and self.scheme.fixed is None

    @property
    def seen(self) -> bool:
        """Whether the range comes from data, of training or of calibration, or needs none."""
        return bool(self.is_seen())

    def set_range(self, low: float, high: float) -> None:
        """Set the range as if data had given it; learning, if any, starts anew from it."""
        self.range.assign(np.array([low, high], "float32"))
        self.batches.assign(1.0)
        if self.learns:
            self.step_change.assign(0.0)

    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale (float32 scalar) and zero point (scalar in the integer dtype of the scheme)."""
        low, high = self.range.numpy()
        scale, zero_point = numerics.scale_from_range(low, high, self.scheme, np)
        if self.learns:
            scale = _learned_scale(scale, self.step_change.numpy(), np)
        return np.asarray(scale, np.float32), np.asarray(zero_point).astype(self.scheme.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "scheme": self.scheme.get_config(),
            "ranges": self.ranges,
            "frozen": self.frozen,
            "reasons": {path: dict(reason) for path, reason in self.reasons.items()},
        }


def check_ranges(ranges: str) -> str:
    """`ranges` itself if it is known.

    Raises:
        ValueError: it is not.
    """
    if ranges not in RANGES:
        raise ValueError(must_be_one_of("ranges", RANGES, ranges))
    return ranges


def _learned_scale(start, change, xp):
    return xp.maximum(start + change, start * 1e-3)  # a step size stays positive


def _initial_range(shape, dtype=None):
    del shape
    return ops.convert_to_tensor([-UNSEEN_RANGE, UNSEEN_RANGE], dtype=dtype)
