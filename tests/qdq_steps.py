"""Steps of a chain of operators in a `QdqFile`: each takes the file and the tensor so far, and returns the next."""

import numpy as np


def numbers(*shape):
    count = int(np.prod(shape))
    return np.linspace(0.5, 3, count).reshape(shape).astype("float32") if count > 1 else np.full(shape, 1.7, "float32")


def op(op_type, *shapes, **attributes):
    """A step: the operator with a constant of each shape."""
    return lambda f, x: f.op(op_type, x, *(f.constant(numbers(*shape)) for shape in shapes), **attributes)


def reduce(op_type, *axes, keepdims=1):
    return lambda f, x: f.op(op_type, x, f.ints(*axes), keepdims=keepdims)


def shaped(op_type, *sizes):
    return lambda f, x: f.op(op_type, x, f.ints(*sizes))


def pair(f, x, scale=0.02, axis=None):
    """A quantizer; with an axis, it has a scale for each of the 4 channels there."""
    attributes = {} if axis is None else {"axis": axis}
    count = () if axis is None else (4,)
    return f.pair(x, scale * numbers(*count) / numbers().max(), np.zeros(count), np.int8, **attributes)
