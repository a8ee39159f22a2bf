"""What the replicas of a model see together: ranges from the parts of a batch would differ by replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

#: Takes a float32 tensor of shape (n,); returns those of all replicas, (replicas, n).
Gather = Callable[[Any], Any]


def batch_range(x):
    """Returns the least and the greatest value of a batch, of all replicas' parts of it.

    Args:
        x: float32 tensor of any shape; of this replica. It may be empty where another replica's is not.

    Returns:
        float32 tensor (low, high), the same in each replica.
    """
    own = ops.stack(_least_and_greatest(x))
    gather = _gather()
    if gather is None:
        return own
    ranges = gather(own)
    return ops.stack([ops.min(ranges[:, 0]), ops.max(ranges[:, 1])])


def _least_and_greatest(x):
    if keras.backend.backend() == "torch":
        import torch

        return torch.aminmax(x)  # in one pass
    return ops.min(x), ops.max(x)


def mean_magnitude(x):
    """Returns the mean of abs(x) over a batch, over all replicas' parts of it.

    Args:
        x: float32 tensor of any shape; of this replica.

    Returns:
        A float32 scalar tensor, the same in each replica.
    """
    gather = _gather()
    if gather is None:
        return ops.mean(ops.abs(x))
    sums = gather(ops.stack([ops.sum(ops.abs(x)), ops.cast(ops.size(x), "float32")]))
    return ops.sum(sums[:, 0]) / ops.sum(sums[:, 1])


def either(condition, if_true: Callable[[], Any], if_false: Callable[[], Any]):
    """Returns one of two results, and computes the other only if replicas must exchange tensors for it.

    An exchange within a branch is forbidden in TensorFlow, and would hang where replicas took different branches.

    Args:
        condition: a boolean scalar tensor.
        if_true, if_false: functions of no arguments; they return tensors of the same shape.

    Returns:
        What the chosen function returns.
    """
    if _gather() is None:
        return ops.cond(condition, if_true, if_false)
    return ops.where(condition, if_true(), if_false())


def _gather() -> Gather | None:
    """Returns how to see the tensors of all replicas; `None` if there is one, or if JAX shards the batch.

    JAX computes on the whole batch, wherever its parts are: a reduction is over all of them.
    """
    gathers = {"tensorflow": _tensorflow, "torch": _torch}
    gather = gathers.get(keras.backend.backend())
    return gather() if gather is not None else None


def _tensorflow() -> Gather | None:
    """With `tf.distribute`, inside `strategy.run`, where Keras calls its training step."""
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return None
    return lambda values: replica.all_gather(values[None], axis=0)


def _torch() -> Gather | None:
    """With `torch.distributed`, whose processes train one model: DistributedDataParallel."""
    import torch
    from torch import distributed as processes

    if not processes.is_available() or not processes.is_initialized() or processes.get_world_size() == 1:
        return None

    def gather(values):
        parts = [torch.empty_like(values) for _ in range(processes.get_world_size())]
        processes.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    return gather
