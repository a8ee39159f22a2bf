"""`ActivationQuantizer`: fake-quantizes an activation; the range is a weight of the quantizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.quantizers import numerics, own_numbers, replicas
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize, fake_quantize_learned, float32
from tensorflow_quantization.quantizers.observers import OBSERVERS
from tensorflow_quantization.quantizers.scheme import QuantizationScheme
from tensorflow_quantization.text.messages import must_be_one_of
from tensorflow_quantization.text.warn import converting

#: The step is a trained weight; the zero point, too.
LEARNED, LEARNED_OFFSET = "learned", "learned_offset"
RANGES = (*OBSERVERS, LEARNED, LEARNED_OFFSET)
#: A quantizer that never saw data has the range from minus this to plus this.
UNSEEN_RANGE = 6.0


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class ActivationQuantizer(keras.layers.Layer):
    """Fake-quantizes its input per-tensor: rounds it to the integers of `scheme` and returns floats of the same dtype.

    The range starts at ±6. `calibrate` sets it. In training it follows the batches, see `ranges`, unless the quantizer
    is `frozen`, or is not `trainable` and has a range from data.

    Examples:
        >>> quantizer = ActivationQuantizer(QuantizationScheme())
        >>> quantizer.set_range(-1.0, 2.54)
        >>> scale, zero_point = quantizer.parameters()
        >>> f"{scale:.3f}, {zero_point}"
        '0.020, 0'

    Args:
        scheme: `QuantizationScheme`, or its config; `axis` must be `None`.
        ranges: how the range follows training batches:

            - "ema" (default): exponential moving average of the ranges of the batches.
            - "last": the range of the last batch.
            - "learned": the step, which is the scale, is a trained weight (LSQ, arXiv:1902.08153). It starts from
              calibration, or from the first batch at 2 * mean(abs(x)) / sqrt(qmax) (LSQ, section 2.1).
            - "learned_offset": the zero point of an asymmetric scheme is trained, too (LSQ+, arXiv:2004.09576). The
              trained number is the shift of the range, and rounded to a whole zero point, so that zero stays a level.
        frozen: bool, default `False`; `True`: training does not update the range. A learned step is still trained;
            `trainable=False` stops that.
        same_as: another `ActivationQuantizer`, or `None` (default). Both share its range, which only the other
            quantizer updates. `scheme` and `ranges` must be the same.
        reasons: the decisions of `quantize_model`, which `describe` reads: {path: {"code": ..., "text": ...}}. They are
            about this layer and may be about layers that stayed float. Default `None`: no decisions.
        target: the name of the runtime that the model is quantized for; the export reads it. `None` (default): any.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: `ranges` is unknown, or the scheme has an axis.
    """

    range: keras.Variable  # (low, high)
    batches: keras.Variable  # the number of batches that `range` comes from
    step_change: keras.Variable  # of a learned step, a fraction of its start, see `_add_range`
    offset: keras.Variable  # of a learned zero point: what the range has moved by, in steps at their start

    def __init__(
        self,
        scheme: QuantizationScheme,
        ranges: str = "ema",
        frozen: bool = False,
        *,
        same_as: ActivationQuantizer | None = None,
        reasons: dict[str, dict[str, str]] | None = None,
        target: str | None = None,
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)  # the output has the dtype of the input
        self.scheme = QuantizationScheme.from_config(scheme)
        if self.scheme.axis is not None:
            raise ValueError(f"Activations are quantized per tensor; the scheme has axis {self.scheme.axis}.")
        if self.scheme.block_size is not None:
            raise ValueError(
                f"Activations are quantized per tensor; the scheme has block_size {self.scheme.block_size}, which "
                "is for weights."
            )
        self.ranges = check_ranges(ranges)
        self.frozen = frozen
        self.reasons = dict(reasons or {})
        self.target = target
        # Replaces quantization if set: gets the tensor and returns the output. Functions compiled before ignore it.
        self.observer: Callable[[Any], Any] | None = None
        # What estimated the range, if calibration did; `save_calibration` reads it.
        self.estimator: Any = None
        self.supports_masking = True
        self.has_own_range = same_as is None
        if same_as is None:
            self._add_range()
        else:
            self.range, self.batches = same_as.range, same_as.batches
            if self.learns:
                self.step_change = same_as.step_change
            if self.learns_offset:
                self.offset = same_as.offset
        self.built = True

    def _add_range(self):
        self.range = self.add_weight(
            name="range", shape=(2,), initializer=_initial_range, trainable=False, autocast=False
        )
        self.batches = self.add_weight(name="batches", initializer="zeros", trainable=False, autocast=False)
        if self.learns:
            # The step is its start, which comes from `range`, plus this trained change. One variable for both would be
            # assigned in the first training step, and a backend may forbid to assign to a trained weight there. The
            # gradient is the same.
            self.step_change = self.add_weight(name="step_change", initializer="zeros", autocast=False)
        if self.learns_offset:
            self.offset = self.add_weight(name="offset", initializer="zeros", autocast=False)

    def call(self, x, training=None, rectify=False):
        """Fake-quantizes `x`, or `relu(x)` with `rectify`, which keeps less for the gradient than a ReLU before."""
        if rectify and (self.observer is not None or self.learns_offset or self.scheme.floating):
            x, rectify = ops.relu(x), False
        if self.observer is not None:
            return self.observer(x)
        x32 = float32(x)
        if training and self.has_own_range and not self.frozen and self.scheme.fixed is None:
            self._follow(ops.stop_gradient(x32), rectify)
        start, scale, zero_point = self._start_scale_and_zero_point()
        if self.learns:
            elements = math.prod(d for d in x.shape[1:] if d is not None)
            gradient_scale = numerics.lsq_gradient_scale(elements, start, self.scheme)
            offset = self.offset * start if self.learns_offset else None
            y = fake_quantize_learned(x32, scale, zero_point, self.scheme, gradient_scale, offset, rectify)
        else:
            y = fake_quantize(x32, scale, zero_point, self.scheme, rectify)
        return ops.cast(y, x.dtype)

    def _follow(self, x, rectify):
        """Updates the range from a batch, or from what a ReLU returns for it."""
        batches, xp = own_numbers.read(self.batches)
        range_, _ = own_numbers.read(self.range)
        if self.learns:
            updated = replicas.either(batches > 0, lambda: range_, lambda: self._lsq_start(x, rectify))
        else:
            batch_range = self._batch_range(x, rectify)
            if xp is np:
                batch_range = batch_range.numpy()
            updated = OBSERVERS[self.ranges](range_, batch_range, batches, xp)
            if not self.trainable:  # like a BatchNormalization with `trainable=False`, which keeps its statistics
                updated = xp.where(batches > 0, range_, updated)
        self.range.assign(updated)
        self.batches.assign(batches + 1.0)

    def _batch_range(self, x, rectify):
        """Returns the least and the greatest value of a batch, or of what a ReLU returns for it, (2,)."""
        found = replicas.batch_range(x)
        return ops.relu(found) if rectify else found

    def _lsq_start(self, x, rectify):
        """Returns the range of the batch, rescaled so that its step is LSQ's initial step."""
        x = ops.relu(x) if rectify else x
        step = 2.0 * replicas.mean_magnitude(x) / math.sqrt(self.scheme.qmax)
        batch_range = replicas.batch_range(x)
        scale, _ = numerics.scale_from_range(batch_range[0], batch_range[1], self.scheme)
        return batch_range * (step / scale)

    def _start_scale_and_zero_point(self):
        """Returns the scale of the range, where training starts from, and what training has made of it.

        Each is a float32 tensor or a number.
        """
        range_, xp = own_numbers.read(self.range)
        low, high = range_ if xp is np else ops.unstack(range_, 2)
        start, zero_point = numerics.scale_from_range(low, high, self.scheme, xp)
        if xp is np:  # NumPy's own numbers would make arrays of the tensors that they meet
            start, zero_point = float(start), float(zero_point)
        if not self.learns:
            return start, start, zero_point
        scale = numerics.learned_scale(start, self.step_change)
        if self.learns_offset:
            zero_point = _learned_zero_point(zero_point, self.offset * start / scale, self.scheme, ops)
        return start, scale, zero_point

    def scale(self):
        """Returns the current scale, a float32 scalar tensor."""
        return ops.convert_to_tensor(self._start_scale_and_zero_point()[1], "float32")

    def is_seen(self):
        """Returns `seen` as a boolean scalar tensor, for compiled functions."""
        return ops.ones((), "bool") if self.scheme.fixed is not None else ops.convert_to_tensor(self.batches) > 0

    @property
    def learns(self) -> bool:
        """Whether the step is a trained weight: `ranges` says so and the scheme fixes no scale."""
        return are_learned(self.ranges) and self.scheme.fixed is None

    @property
    def learns_offset(self) -> bool:
        """Whether the zero point is trained: `ranges="learned_offset"` and the scheme fixes none."""
        return self.ranges == LEARNED_OFFSET and self.scheme.zero_point is None

    @property
    def seen(self) -> bool:
        """Whether the range comes from data (training, calibration, `set_range`), or the scheme fixes the scale."""
        return bool(self.is_seen())

    def set_range(self, low: float, high: float) -> None:
        """Sets the range as calibration does; a learned step restarts from it.

        Args:
            low: float; the least value, in the unit of the tensor.
            high: float; the greatest value.
        """
        self.range.assign(np.array([low, high], "float32"))
        self.batches.assign(1.0)
        if self.learns:
            self.step_change.assign(0.0)
        if self.learns_offset:
            self.offset.assign(0.0)

    @property
    def is_moved(self) -> bool:
        """Whether training has changed a learned step or zero point."""
        learned = [self.step_change] if self.learns else []
        learned += [self.offset] if self.learns_offset else []
        with converting():
            return any(float(change.numpy()) != 0 for change in learned)

    def limits(self) -> tuple[float, float]:
        """Returns the range from data; of a learned or fixed step, the numbers that the integers cover."""
        if self.learns or self.scheme.fixed is not None:  # then `range` is at most the start of the scale
            scale, zero_point = self.parameters()
            low, high = (float(scale) * (q - int(zero_point)) for q in (self.scheme.qmin, self.scheme.qmax))
            return low, high
        with converting():
            low, high = (float(v) for v in self.range.numpy())
        return low, high

    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scale and the zero point, as the export writes them.

        Returns:
            (scale, zero point): a float32 scalar, and a scalar in the dtype of the scheme.
        """
        with converting():
            low, high = self.range.numpy()
            change = self.step_change.numpy() if self.learns else None
            offset = self.offset.numpy() if self.learns_offset else None
        scale, zero_point = numerics.scale_from_range(low, high, self.scheme, np)
        if self.learns:
            start, scale = scale, numerics.learned_scale(scale, change, np)
        if self.learns_offset:
            zero_point = _learned_zero_point(zero_point, offset * start / scale, self.scheme, np)
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
            "target": self.target,
        }


def check_ranges(ranges: str) -> str:
    """Returns `ranges` unchanged.

    Raises:
        ValueError: `ranges` is unknown.
    """
    if ranges not in RANGES:
        raise ValueError(must_be_one_of("ranges", RANGES, ranges))
    return ranges


def are_learned(ranges: str) -> bool:
    """Returns whether these `ranges` are trained weights."""
    return ranges in (LEARNED, LEARNED_OFFSET)


def _learned_zero_point(start, steps, scheme, xp):
    """Returns the whole zero point of a range that has moved up by so many steps."""
    return xp.clip(xp.round(start - steps), scheme.qmin, scheme.qmax)


def _initial_range(shape, dtype=None):
    del shape
    return ops.convert_to_tensor([-UNSEEN_RANGE, UNSEEN_RANGE], dtype=dtype)
