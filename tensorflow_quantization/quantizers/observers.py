"""Observers of training: functions that update an activation range from the range of a batch."""

from __future__ import annotations

from keras import ops

#: The weight of earlier batches in the moving average. The first 100 batches are averaged with equal weights.
EMA_MOMENTUM = 0.99


def ema(range_, batch_range, batches, xp=ops):
    """Returns the exponential moving average of the ranges of all batches (arXiv:1712.05877, section 3.1)."""
    momentum = xp.minimum(EMA_MOMENTUM, batches / (batches + 1.0))
    return batch_range + momentum * (range_ - batch_range)


def last(range_, batch_range, batches, xp=ops):
    """Returns the range of the last batch, as NVIDIA's toolkit does."""
    del range_, batches, xp
    return batch_range


#: Each takes the range so far and the range of the batch, both (low, high), the float32 count of earlier batches, and
#: the array namespace that computes; it returns the new range.
OBSERVERS = {"ema": ema, "last": last}
