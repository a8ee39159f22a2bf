"""How an activation range follows the batches of training: one function an entry of `OBSERVERS`."""

from __future__ import annotations

from keras import ops

#: Weight of the past in the moving average, once as many batches have been seen; before that it is a plain mean.
EMA_MOMENTUM = 0.99


def ema(range_, batch_range, batches):
    """Exponential moving average: the mean of the first batches, then with momentum 0.99 (arXiv:1712.05877, 3.1)."""
    momentum = ops.minimum(EMA_MOMENTUM, batches / (batches + 1.0))
    return batch_range + momentum * (range_ - batch_range)


def last(range_, batch_range, batches):
    """The range of the last batch alone, as the old toolkit did it."""
    del range_, batches
    return batch_range


#: Arguments: the range so far (low, high), that of this batch, and how many batches came before it (float32).
OBSERVERS = {"ema": ema, "last": last}
