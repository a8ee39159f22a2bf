"""Sample weights, as `fit` takes them, for losses that are computed while a model is called."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops, tree

#: Of the batch whose step is running; in a variable of the thread, since each replica has a thread.
_WEIGHTS: contextvars.ContextVar[Any] = contextvars.ContextVar("sample weights", default=None)


@contextlib.contextmanager
def weighing(batch: Any) -> Iterator[None]:
    """Lets `weights_of_outputs` return the sample weights of a batch, which `fit` passes to `train_step`."""
    token = _WEIGHTS.set(keras.utils.unpack_x_y_sample_weight(batch)[2])
    try:
        yield
    finally:
        _WEIGHTS.reset(token)


def weights_of_outputs(outputs: Any, names: Sequence[str]) -> list[Any]:
    """Returns the sample weights of each output in the batch whose step is running; `None` for an output without.

    Args:
        outputs: the outputs of the model, in their structure.
        names: the names of the outputs, which a dict of weights has as keys. Outputs in a dict are named by its keys.
    """
    weights = _WEIGHTS.get()
    if isinstance(weights, dict):
        named = weights
        weights = {key: named.get(key) for key in outputs} if isinstance(outputs, dict) else list(map(named.get, names))
    count, found = len(tree.flatten(outputs)), tree.flatten(weights)
    if len(found) == 1:
        return found * count
    if len(found) != count:
        raise ValueError(
            f"There are {len(found)} arrays of sample weights, and the model has {count} outputs. Pass one array, or "
            "one for each output."
        )
    return found


def of_samples(weights: Sequence[Any]) -> Any:
    """Returns the mean of the weights of several outputs, one number for each sample; `None` without weights."""
    means = [ops.mean(ops.reshape(w, (ops.shape(w)[0], -1)), axis=1) for w in map(_float32, weights) if w is not None]
    if not means:
        return None
    return (sum(means) + len(weights) - len(means)) / len(weights)


def weighted_mean(values: Any, weight: Any) -> Any:
    """Returns the mean of values, each times the weight of its sample or step, as Keras weighs losses.

    Args:
        values: float32 tensor; the first axis is the batch.
        weight: tensor, shape (batch,) or with further axes of `values`; `None`: all are 1.

    Raises:
        ValueError: the weight has more axes than the values.
    """
    weight = _float32(weight)
    if weight is None:
        return ops.mean(values)
    while len(weight.shape) > len(values.shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    if len(weight.shape) > len(values.shape):
        raise ValueError(
            f"Sample weights of shape {tuple(weight.shape)} cannot weigh a distillation loss of shape "
            f"{tuple(values.shape)}. Let the loss return one value for each sample, and pass one weight for each."
        )
    return ops.mean(values * ops.expand_dims(weight, tuple(range(len(weight.shape), len(values.shape)))))


def _float32(weight: Any) -> Any:
    return None if weight is None else ops.convert_to_tensor(weight, "float32")
