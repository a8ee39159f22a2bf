"""`calibrate`: set the activation ranges of a quantized model from data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from tensorflow_quantization.calibration.estimator import RangeEstimator
from tensorflow_quantization.calibration.min_max import MinMax
from tensorflow_quantization.calibration.mse import MSE
from tensorflow_quantization.calibration.percentile import Percentile
from tensorflow_quantization.model.keras_internals import data_adapter, sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.text.messages import must_be_one_of

ESTIMATORS: dict[str, type[RangeEstimator]] = {"minmax": MinMax, "percentile": Percentile, "mse": MSE}

#: Older names of methods, and what they are called now.
_OLDER_NAMES = {"max": "minmax"}


def calibrate(
    model: keras.Model,
    data: Any,
    *,
    method: str | type[RangeEstimator] = "minmax",
    steps: int | None = None,
    batch_size: int | None = None,
    verbose: int = 1,
) -> keras.Model:
    """Set the activation ranges of a quantized model from data, and freeze them.

    The data flows through the model in inference mode with activations unquantized (weights are quantized, as they
    will be), and each quantizer sees its tensor. Training that follows keeps the ranges, except for
    `ranges="learned"`, which goes on learning from them. A hundred batches or fewer are enough.

    Example:
        >>> quantized = quantize_model(model, target="onnxruntime")
        >>> quantized = calibrate(quantized, images, method="percentile", verbose=0)
        >>> all(quantizer.frozen for layer in describe(quantized) for quantizer in layer.quantizers if quantizer.scale)
        True

    Args:
        model: from `quantize_model`; changed in place.
        data: anything that `model.predict` takes (arrays, lists or dicts of them, a `tf.data.Dataset`, a `PyDataset`, a
            generator, a torch `DataLoader`); of (x, y) pairs only x is used.
        method: "minmax" (the whole range seen; "max" is an older name), "percentile" (99.99 % of the values), "mse"
            (the least mean squared error), or a function of no arguments that makes a `RangeEstimator`, such as
            `lambda: Percentile(99.9)`.
        steps: how many batches at most; `None`: all of them. Needed for a generator that never ends.
        batch_size: of arrays; 32 by default.
        verbose: 1 shows a progress bar, 0 nothing.

    Returns:
        `model`.

    Raises:
        ValueError: the model has no quantizers, an unknown method, steps below 1, no data, or activations that are not
            finite. Ranges are then as they were.
    """
    quantizers = _activation_quantizers(model)
    make_estimator = _estimator(method)
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    ranged = [quantizer for quantizer in quantizers if quantizer.has_own_range]
    estimators = [_Checked(make_estimator(), quantizer.path) for quantizer in ranged]
    with _observing(model, quantizers, dict(zip(ranged, estimators, strict=True))):
        _run(model, data, steps, batch_size, verbose)
    _set_ranges(ranged, estimators)
    for quantizer in quantizers:
        quantizer.frozen = quantizer.ranges != "learned"
    return model


def _activation_quantizers(model: keras.Model) -> list[ActivationQuantizer]:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model, got {type(model).__name__}.")
    quantizers = [layer for layer in sublayers(model) if isinstance(layer, ActivationQuantizer)]
    if not quantizers:
        raise ValueError(
            f"Model {model.name!r} has no activation quantizers to calibrate. Pass what quantize_model(model) returns."
        )
    return quantizers


def _estimator(method):
    if callable(method):
        return method
    name = _OLDER_NAMES.get(method, method)
    if name not in ESTIMATORS:
        raise ValueError(must_be_one_of("method", ESTIMATORS, method))
    return ESTIMATORS[name]


class _Checked:
    """Passes finite batches on to an estimator."""

    def __init__(self, estimator: RangeEstimator, path: str):
        self.estimator, self.path, self.seen = estimator, path, False

    def __call__(self, tensor: Any) -> Any:
        """See a batch, which passes unquantized."""
        # In float32: numpy has no reductions of a bfloat16.
        x = ops.convert_to_numpy(ops.cast(tensor, "float32"))
        if x.size == 0:
            return tensor
        if not np.isfinite(x).all():
            raise ValueError(
                f"{self.path!r} got values that are NaN or infinite. Check the data and the weights of the layers "
                "before it."
            )
        self.estimator.update(x)
        self.seen = True
        return tensor


@contextlib.contextmanager
def _observing(model, quantizers, estimators: dict) -> Iterator[None]:
    """Within it the model runs eagerly, as observers see values and not symbols."""
    eagerly = model.run_eagerly
    model.run_eagerly = True
    _forget_compiled_functions(model)
    for quantizer in quantizers:
        quantizer.observer = estimators.get(quantizer, _passing)
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.observer = None
        model.run_eagerly = eagerly
        _forget_compiled_functions(model)


def _passing(tensor: Any) -> Any:
    return tensor


def _forget_compiled_functions(model: keras.Model) -> None:
    """Let the next `fit`, `evaluate` or `predict` compile anew: what a quantizer does has changed."""
    model.train_function = model.test_function = model.predict_function = None


def _run(model, data, steps, batch_size, verbose) -> None:
    adapter = data_adapter(data, batch_size)
    total = adapter.num_batches
    if steps is not None:
        total = steps if total is None else min(steps, total)
    bar = keras.utils.Progbar(total, verbose=verbose, unit_name="batch")
    done = 0
    for batch in adapter.get_numpy_iterator():
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        model.predict_on_batch(x)
        done += 1
        bar.update(done, finalize=done == total)
        if done == total:
            break
    if done == 0:
        raise ValueError("The calibration data is empty: it gave no batch.")
    if total is None:
        bar.update(done, finalize=True)


def _set_ranges(quantizers, estimators) -> None:
    unseen = [checked.path for checked in estimators if not checked.seen]
    if unseen:
        raise ValueError(f"No data reached {', '.join(unseen)}: the model's predict_step does not call these layers.")
    ranges = [c.estimator.range(q.scheme) for q, c in zip(quantizers, estimators, strict=True)]
    for quantizer, (low, high) in zip(quantizers, ranges, strict=True):
        quantizer.set_range(low, high)
