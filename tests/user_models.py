"""Random models with what users' models have: masks, dict outputs, Lambda, mixed precision, dilation, dynamic sizes."""

import contextlib

import keras
import numpy as np
from hypothesis import strategies as st
from keras import Input, Model, layers, ops
from small_models import randomize

SIZE, STEPS, FRAMES, CHANNELS, WORDS = 6, 7, 3, 4, 9
HALF = 0.5  # functions in Lambda layers read it


def _halves(x):
    return x * HALF


def _part(x, index):
    return ops.split(x, 2, axis=-1)[index]


def _joined(*tensors):
    """Back to `CHANNELS`, whatever was concatenated."""
    return layers.Dense(CHANNELS)(layers.Concatenate()(tensors))


def _stages(x):
    """The block of YOLO networks: both halves, and what a convolution adds to one."""
    a, b = ops.split(x, 2, axis=-1)
    return _joined(a, b, a + layers.Dense(CHANNELS // 2)(b))


class _Points(layers.Layer):
    """Computes with the points of an image in one axis; its code reads the sizes of the image."""

    def call(self, x):
        batch, height, width, channels = ops.shape(x)
        points = ops.reshape(x, (batch, height * width, channels))
        # Half of the mean: without all of it, a later mean over the image would be nothing but rounding errors.
        points -= 0.5 * ops.mean(points, axis=1, keepdims=True)
        return ops.reshape(points, (batch, height, width, channels))

    def compute_output_shape(self, input_shape):
        return input_shape


#: What takes a tensor (batch, ..., channels) to one of the same shape, whatever its rank.
ANY = {
    "dense": lambda x: layers.Dense(CHANNELS)(x),
    "dense_plain": lambda x: layers.Dense(CHANNELS, use_bias=False)(x),
    "dense_relu": lambda x: layers.Dense(CHANNELS, activation="relu")(x),
    "batch_norm": lambda x: layers.BatchNormalization()(x),
    "layer_norm": lambda x: layers.LayerNormalization()(x),
    "relu6": lambda x: layers.ReLU(6.0)(x),
    "hard_sigmoid": lambda x: layers.Activation("hard_sigmoid")(x),
    "gelu": lambda x: layers.Activation("gelu")(x),
    "closure": lambda x: (lambda factor: layers.Lambda(lambda t: t * factor))(1.5)(x),
    "global": lambda x: layers.Lambda(_halves)(x),
    "keras_ops": lambda x: layers.Lambda(lambda t: ops.relu(t) - np.float32(0.25))(x),
    "affine": lambda x: x / 127.5 - 1.0,
    "rescaling": lambda x: layers.Rescaling(0.5, 0.1)(x),
    "stages": _stages,
    "half_and_sum": lambda x: _joined(_part(x, 0), _part(x, 0) + _part(x, 1)),
    "own_tanh": lambda x: layers.Lambda(ops.tanh)(x),
    "negative": lambda x: -0.75 * ops.relu(x),
    "dropout": lambda x: layers.Dropout(0.3)(x),
    "peak": lambda x: x - layers.Dense(CHANNELS)(ops.max(x, axis=-1, keepdims=True)),
    "lowest": lambda x: x + layers.Dense(CHANNELS, use_bias=False)(ops.min(x, axis=1, keepdims=True)),
}
IMAGES = {
    "conv": lambda x: layers.Conv2D(CHANNELS, 3, padding="same")(x),
    "conv_plain": lambda x: layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False)(x),
    "conv_norm": lambda x: layers.BatchNormalization()(layers.Conv2D(CHANNELS, 1, use_bias=False)(x)),
    "dilated": lambda x: layers.Conv2D(CHANNELS, 3, padding="same", dilation_rate=2)(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, padding="same", activation="relu")(x),
    "depthwise_plain": lambda x: layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x),
    "separable": lambda x: layers.SeparableConv2D(CHANNELS, 3, padding="same")(x),
    "transposed": lambda x: layers.Conv2DTranspose(CHANNELS, 3, padding="same")(x),
    "transposed_plain": lambda x: layers.Conv2DTranspose(CHANNELS, 2, padding="same", use_bias=False)(x),
    "transposed_sparse": lambda x: layers.MaxPooling2D(2)(layers.Conv2DTranspose(CHANNELS, 1, strides=2)(x)),
    "negated": lambda x: -layers.Conv2D(CHANNELS, 3, padding="same", activation="relu", use_bias=False)(x),
    "max_pool": lambda x: layers.MaxPooling2D(3, 1, padding="same")(x),
    "average_pool": lambda x: layers.AveragePooling2D(3, 1, padding="same")(x),
    "there_and_back": lambda x: layers.AveragePooling2D(2)(layers.UpSampling2D(2)(x)),
    "points": lambda x: _Points()(x),
    "mirror": lambda x: ops.cumsum(x, axis=1) - ops.cumsum(ops.transpose(x, (0, 2, 1, 3)), axis=1),
    "gate": lambda x: x * ops.sigmoid(layers.Dense(CHANNELS)(ops.mean(x, axis=(1, 2), keepdims=True))),
}
SEQUENCES = {
    "conv1d": lambda x: layers.Conv1D(CHANNELS, 3, padding="same")(x),
    "conv1d_plain": lambda x: layers.Conv1D(CHANNELS, 3, padding="same", use_bias=False)(x),
    "causal": lambda x: layers.Conv1D(CHANNELS, 3, padding="causal", dilation_rate=2)(x),
    "lstm": lambda x: layers.LSTM(CHANNELS, return_sequences=True)(x),
    "gru": lambda x: layers.GRU(CHANNELS, return_sequences=True)(x),
    "both_ways": lambda x: layers.Dense(CHANNELS)(layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)),
    "every_step": lambda x: layers.TimeDistributed(layers.Dense(CHANNELS))(x),
    "attention": lambda x: layers.MultiHeadAttention(2, 2)(x, x),
}
VIDEOS = {
    "every_frame": lambda x: layers.TimeDistributed(layers.Conv2D(CHANNELS, 3, padding="same"))(x),
    "pool_frames": lambda x: layers.TimeDistributed(layers.MaxPooling2D(3, 1, padding="same"))(x),
    "conv3d": lambda x: layers.Conv3D(CHANNELS, 2, padding="same")(x),
}
#: What joins two of them.
BINARY = {
    "add": lambda x, y: layers.Add()([x, y]),
    "average": lambda x, y: layers.Average()([x, y]),
    "maximum": lambda x, y: layers.Maximum()([x, y]),
    "minimum": lambda x, y: ops.minimum(x, y),
    "subtract": lambda x, y: layers.Subtract()([x, y]),
    "concat": lambda x, y: _joined(x, y),
    "sum_of_ops": lambda x, y: x + ops.relu(y),
}
KINDS = {"images": IMAGES, "sequences": SEQUENCES, "tokens": SEQUENCES, "videos": VIDEOS}
OUTPUTS = ("one", "list", "dict", "with_input")
#: What makes a row of channels of them.
HEADS = {"mean": ops.mean, "max": ops.max, "min": ops.min, "logsumexp": ops.logsumexp}


def _input(kind, dynamic):
    """The input of the model, and the tensor of `CHANNELS` channels that the steps start from."""
    if kind == "images":
        size = None if dynamic else SIZE
        x = Input((size, size, 3), name="image")
        return x, layers.Conv2D(CHANNELS, 3, padding="same")(x)
    if kind == "sequences":
        x = Input((STEPS, 3), name="sequence")
        return x, layers.Dense(CHANNELS)(layers.Masking()(x) if dynamic else x)
    if kind == "tokens":
        x = Input((STEPS,), dtype="int32", name="tokens")
        return x, layers.Embedding(WORDS, CHANNELS, mask_zero=dynamic)(x)
    x = Input((FRAMES, SIZE, SIZE, 3), name="video")
    return x, layers.TimeDistributed(layers.Conv2D(CHANNELS, 3, padding="same"))(x)


def _head(kind, reduce, x):
    axes = {"images": (1, 2), "videos": (1, 2, 3)}.get(kind, (1,))
    return layers.Dense(3)(HEADS[reduce](x, axis=axes))


def build(kind, dynamic, steps, outputs, policy, head="mean"):
    """The model of such steps. `dynamic`: images of any size, or sequences with a mask."""
    with _dtype_policy(policy):
        inputs, start = _input(kind, dynamic)
        tensors = [start]
        for name, i, j in steps:
            first, second = tensors[-1 - i % len(tensors)], tensors[-1 - j % len(tensors)]
            unary = {**ANY, **KINDS[kind]}
            tensors.append(unary[name](first) if name in unary else BINARY[name](first, second))
        score = _head(kind, head, tensors[-1])
        structure = {
            "one": score,
            "list": [score, tensors[-1]],
            "dict": {"scores": score, "features": tensors[len(tensors) // 2]},
            "with_input": [inputs, score],
        }[outputs]
        return randomize(Model(inputs, structure))


@contextlib.contextmanager
def _dtype_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def data_for(kind, count, seed=0):
    """Inputs of such a model; sequences end with some steps that are masked."""
    rng = np.random.default_rng(seed)
    if kind == "tokens":
        x = rng.integers(1, WORDS, (count, STEPS))
        x[:, STEPS - 2 :] = 0
        return x.astype("int32")
    shapes = {"images": (SIZE, SIZE, 3), "sequences": (STEPS, 3), "videos": (FRAMES, SIZE, SIZE, 3)}
    x = rng.normal(size=(count, *shapes[kind])).astype("float32")
    if kind == "sequences":
        x[: count // 2, STEPS - 2 :] = 0
    return x


@st.composite
def user_models(draw):
    """The arguments of `build`, as a dict."""
    kind = draw(st.sampled_from(list(KINDS)))
    names = st.sampled_from([*ANY, *KINDS[kind], *KINDS[kind], *BINARY])
    step = st.tuples(names, st.integers(0, 2), st.integers(0, 2))
    return {
        "kind": kind,
        "dynamic": draw(st.booleans()),
        "steps": draw(st.lists(step, min_size=1, max_size=5)),
        "outputs": draw(st.sampled_from(OUTPUTS)),
        "policy": draw(st.sampled_from(["float32", "float32", "float32", "mixed_float16", "mixed_bfloat16"])),
        "head": draw(st.sampled_from(["mean", *HEADS])),
    }
