"""Random small graphs of layers and operations, in both data formats."""

from hypothesis import reject
from hypothesis import strategies as st
from keras import Input, Model, layers, ops
from small_models import randomize

from tensorflow_quantization import quantize_model

SIZE, CHANNELS = 6, 4


def _shift(x, axis):
    return ops.roll(x, 1, axis=2)


def _gate(x, axis):
    return x * ops.sigmoid(ops.mean(x, axis=tuple({1, 2, 3} - {axis}), keepdims=True))


def _there_and_back(x, axis):
    """Through another order of axes, and through a matrix."""
    flat = ops.reshape(x, (-1, SIZE * SIZE * CHANNELS))
    return ops.reshape(flat, (-1, *x.shape[1:]))


#: What takes a tensor to one of the same shape.
UNARY = {
    "conv": lambda x, f, axis: layers.Conv2D(CHANNELS, 3, padding="same", data_format=f)(x),
    "pointwise": lambda x, f, axis: layers.Conv2D(CHANNELS, 1, use_bias=False, data_format=f)(x),
    "depthwise": lambda x, f, axis: layers.DepthwiseConv2D(3, padding="same", data_format=f)(x),
    "norm": lambda x, f, axis: layers.BatchNormalization(axis=axis)(x),
    "relu": lambda x, f, axis: layers.ReLU()(x),
    "swish": lambda x, f, axis: layers.Activation("silu")(x),
    "max_pool": lambda x, f, axis: layers.MaxPooling2D(3, 1, padding="same", data_format=f)(x),
    "average_pool": lambda x, f, axis: layers.AveragePooling2D(3, 1, padding="same", data_format=f)(x),
    "shift": lambda x, f, axis: _shift(x, axis),
    "gate": lambda x, f, axis: _gate(x, axis),
    "reshape": lambda x, f, axis: _there_and_back(x, axis),
    "flip": lambda x, f, axis: ops.flip(x, axis=1),
    "clip": lambda x, f, axis: ops.clip(x, -1.0, 1.5),
    "dense": lambda x, f, axis: layers.Dense(x.shape[-1])(x),
    "turn": lambda x, f, axis: layers.Permute((2, 1, 3) if axis == 3 else (1, 3, 2))(x),
}
#: What joins two of them.
BINARY = {
    "add": lambda x, y, f, axis: layers.Add()([x, y]),
    "plus": lambda x, y, f, axis: x + y * 0.5,
    "maximum": lambda x, y, f, axis: ops.maximum(x, y),
    "where": lambda x, y, f, axis: ops.where(x > 0.0, x, y),
    "concat": lambda x, y, f, axis: layers.Conv2D(CHANNELS, 1, data_format=f)(layers.Concatenate(axis=axis)([x, y])),
}
HEADS = {
    "pool": lambda x, f: layers.Dense(3)(layers.GlobalAveragePooling2D(data_format=f)(x)),
    "flatten": lambda x, f: layers.Dense(3)(layers.Flatten(data_format=f)(x)),
    "none": lambda x, f: x,
}
#: A name, and which of the tensors so far it takes, counted from the last.
STEPS = st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 3), st.integers(0, 3))


def build(data_format, steps, head):
    """The model of such steps, one after the other, each on some of the tensors before it."""
    axis = 3 if data_format == "channels_last" else 1
    shape = (SIZE, SIZE, CHANNELS) if axis == 3 else (CHANNELS, SIZE, SIZE)
    inputs = Input(shape)
    tensors = [inputs]
    for name, i, j in steps:
        first, second = tensors[-1 - i % len(tensors)], tensors[-1 - j % len(tensors)]
        if name in UNARY:
            tensors.append(UNARY[name](first, data_format, axis))
        else:
            tensors.append(BINARY[name](first, second, data_format, axis))
    return randomize(Model(inputs, HEADS[head](tensors[-1], data_format)))


def quantized(model, **arguments):
    """The quantized model. A graph of which nothing can be quantized is no case of the test."""
    try:
        return quantize_model(model, **arguments)
    except ValueError as error:
        if not str(error).startswith("Nothing is quantized"):
            raise
        reject()


#: The arguments of `build`, for Hypothesis.
GRAPHS = {
    "data_format": st.sampled_from(["channels_last", "channels_first"]),
    "steps": st.lists(STEPS, min_size=2, max_size=8),
    "head": st.sampled_from(list(HEADS)),
}
