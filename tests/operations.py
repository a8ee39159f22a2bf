"""Layers and operations on images and on sequences, as they stand between two quantized layers."""

import numpy as np
from hypothesis import strategies as st
from keras import Input, Model, layers, ops
from small_models import randomize

SHAPE, SEQUENCE, CHANNELS = (6, 6, 4), (7, 4), 4


def _words(names):
    return names.split()


#: By name, what takes floats of any rank with `CHANNELS` channels to floats.
ANY = {
    **{
        name: lambda x, name=name: layers.Activation(name)(x)
        for name in _words(
            "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid "
            "log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus "
            "sparse_sigmoid squareplus tanh tanh_shrink"
        )
    },
    **{
        f"ops.{name}": lambda x, name=name: getattr(ops, name)(x)
        for name in _words("absolute ceil cos cosh erf exp expm1 flip floor negative relu round sign sin square trunc")
    },
    **{
        f"ops.{name}": lambda x, name=name: getattr(ops, name)(ops.absolute(x) + 0.5)
        for name in _words("cbrt log log10 log1p log2 reciprocal rsqrt sqrt")
    },
    **{
        f"ops.{name}": lambda x, name=name: getattr(ops, name)(ops.tanh(x) * 0.9)
        for name in _words("arccos arcsin arctan arctanh arcsinh erfc sinh tan")
    },
    **{
        f"ops.{name} axis {axis}": lambda x, name=name, axis=axis: getattr(ops, name)(x, axis=axis, keepdims=True)
        for name in _words("amax amin logsumexp max mean min prod std sum var")
        for axis in (1, -1)
    },
    **{
        f"ops.{name} all": lambda x, name=name: getattr(ops, name)(x, axis=tuple(range(1, x.ndim)))
        for name in _words("max mean min sum std")
    },
    "ops.glu": lambda x: ops.glu(x),
    "ops.threshold": lambda x: ops.threshold(x, 0.1, -0.5),
    "ops.ptp": lambda x: ops.ptp(x, axis=1),
    "ops.norm": lambda x: ops.norm(x, axis=-1),
    "ops.normalize": lambda x: ops.normalize(x, axis=-1),
    # For TensorFlow, -0.0 is less than 0.0.
    "ops.argmax": lambda x: ops.cast(ops.argmax(x + 0.0, axis=-1), "float32"),
    "ops.cumsum": lambda x: ops.cumsum(x, axis=1),
    "ops.diff": lambda x: ops.diff(x, axis=1),
    "ops.sort": lambda x: ops.sort(x, axis=1),
    "ops.roll": lambda x: ops.roll(x, 1, axis=1),
    "ops.repeat": lambda x: ops.repeat(x, 2, axis=1),
    "ops.tile": lambda x: ops.tile(x, (1, 2) + (1,) * (x.ndim - 2)),
    "ops.take": lambda x: ops.take(x, np.array([2, 0, 1]), axis=1),
    "ops.pad": lambda x: ops.pad(x, [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 2)),
    "ops.pad reflect": lambda x: ops.pad(x, [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 2), mode="reflect"),
    "ops.clip": lambda x: ops.clip(x, -0.5, 1.0),
    "ops.where": lambda x: ops.where(x > 0.1, x, -0.3 * x),
    "ops.maximum": lambda x: ops.maximum(x, 0.2),
    "ops.minimum": lambda x: ops.minimum(x, 0.2),
    "ops.maximum of two": lambda x: ops.maximum(x, ops.flip(x, axis=1)),
    "ops.power": lambda x: ops.power(x, 2),
    "ops.divide": lambda x: x / (ops.absolute(ops.flip(x, axis=1)) + 1.0),
    "ops.multiply": lambda x: x * ops.flip(x, axis=1),
    "ops.subtract": lambda x: x - ops.flip(x, axis=1),
    "ops.add": lambda x: x + ops.flip(x, axis=1),
    "factor": lambda x: x * 3.0,
    "factors": lambda x: x * np.array([0.5, 2.0, 1.0, -1.0], "float32"),
    "shift": lambda x: x + 1.5,
    "shifts": lambda x: x - np.array([0.5, 2.0, 1.0, -1.0], "float32"),
    "quotient": lambda x: x / 127.5 - 1.0,
    "ops.concatenate": lambda x: ops.concatenate([x, ops.flip(x, axis=1)], axis=-1),
    "ops.stack": lambda x: ops.stack([x, ops.flip(x, axis=1)], axis=1),
    "ops.split": lambda x: ops.split(x, 2, axis=-1)[0],
    "ops.split and sum": lambda x: sum(ops.split(x, 2, axis=-1)),
    "ops.slice": lambda x: x[:, 1:3],
    "ops.slice channels": lambda x: x[..., 1:3],
    "ops.slice steps": lambda x: x[:, ::2],
    "ops.get_item": lambda x: x[:, 0],
    "ops.expand_dims": lambda x: ops.expand_dims(x, 1),
    "ops.reshape": lambda x: ops.reshape(x, (-1, int(np.prod(x.shape[1:])) // 2, 2)),
    "ops.transpose": lambda x: ops.transpose(x, (0, *range(x.ndim - 1, 0, -1))),
    "ops.einsum": lambda x: ops.einsum("b...c,b...c->b...", x, x),
    "ops.triu": lambda x: ops.triu(x),
    "ops.top_k": lambda x: ops.top_k(x, 2)[0],
    "ops.matmul": lambda x: ops.matmul(x, ops.swapaxes(x, -1, -2)),
    "Add": lambda x: layers.Add()([x, ops.flip(x, axis=1)]),
    "Average": lambda x: layers.Average()([x, ops.flip(x, axis=1)]),
    "BatchNormalization": lambda x: layers.BatchNormalization()(x),
    "Concatenate": lambda x: layers.Concatenate()([x, ops.flip(x, axis=1)]),
    "Dense": lambda x: layers.Dense(CHANNELS)(x),
    "Dropout": lambda x: layers.Dropout(0.5)(x),
    "ELU": lambda x: layers.ELU(0.7)(x),
    "EinsumDense": lambda x: layers.EinsumDense("...c,cd->...d", 5, bias_axes="d")(x),
    "Flatten": lambda x: layers.Flatten()(x),
    "GaussianNoise": lambda x: layers.GaussianNoise(0.1)(x),
    "GroupNormalization": lambda x: layers.GroupNormalization(2)(x),
    "LayerNormalization": lambda x: layers.LayerNormalization()(x),
    "LeakyReLU": lambda x: layers.LeakyReLU(0.1)(x),
    "Maximum": lambda x: layers.Maximum()([x, ops.flip(x, axis=1)]),
    "Minimum": lambda x: layers.Minimum()([x, ops.flip(x, axis=1)]),
    "Multiply": lambda x: layers.Multiply()([x, ops.flip(x, axis=1)]),
    "Normalization": lambda x: layers.Normalization(mean=[0.1] * 4, variance=[0.5, 1.0, 2.0, 1.0])(x),
    "PReLU": lambda x: layers.PReLU()(x),
    "PReLU shared": lambda x: layers.PReLU(shared_axes=list(range(1, x.ndim - 1)))(x),
    "RMSNormalization": lambda x: layers.RMSNormalization()(x),
    "ReLU slope": lambda x: layers.ReLU(2.0, negative_slope=0.1, threshold=0.2)(x),
    "Rescaling": lambda x: layers.Rescaling([0.5, 2.0, 1.0, 0.1], 0.1)(x),
    "Softmax axis 1": lambda x: layers.Softmax(axis=1)(x),
    "SpectralNormalization": lambda x: layers.SpectralNormalization(layers.Dense(3))(x),
    "Subtract": lambda x: layers.Subtract()([x, ops.flip(x, axis=1)]),
    "UnitNormalization": lambda x: layers.UnitNormalization()(x),
}
#: By name, what takes images of `SHAPE` to floats.
IMAGES = {
    "AdaptiveAveragePooling2D": lambda x: layers.AdaptiveAveragePooling2D(3)(x),
    "AdaptiveMaxPooling2D": lambda x: layers.AdaptiveMaxPooling2D(3)(x),
    "AveragePooling2D": lambda x: layers.AveragePooling2D(2)(x),
    "AveragePooling2D same": lambda x: layers.AveragePooling2D(3, 2, padding="same")(x),
    "CenterCrop": lambda x: layers.CenterCrop(4, 4)(x),
    "Conv2D": lambda x: layers.Conv2D(3, 3)(x),
    "Conv2D strided": lambda x: layers.Conv2D(3, 3, strides=2, padding="same")(x),
    "Conv2D dilated": lambda x: layers.Conv2D(3, 3, dilation_rate=2, padding="same", use_bias=False)(x),
    "Conv2D groups": lambda x: layers.Conv2D(4, 3, groups=2)(x),
    "Conv2DTranspose": lambda x: layers.Conv2DTranspose(3, 3, strides=2)(x),
    "Cropping2D": lambda x: layers.Cropping2D(1)(x),
    "DepthwiseConv2D": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2)(x),
    "GlobalAveragePooling2D": lambda x: layers.GlobalAveragePooling2D()(x),
    "GlobalAveragePooling2D keepdims": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "GlobalMaxPooling2D": lambda x: layers.GlobalMaxPooling2D()(x),
    "MaxPooling2D": lambda x: layers.MaxPooling2D(2)(x),
    "MaxPooling2D same": lambda x: layers.MaxPooling2D(3, 2, padding="same")(x),
    "Permute": lambda x: layers.Permute((3, 1, 2))(x),
    "Reshape": lambda x: layers.Reshape((36, 4))(x),
    "Resizing": lambda x: layers.Resizing(9, 9)(x),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(3, 3)(x),
    "SpatialDropout2D": lambda x: layers.SpatialDropout2D(0.5)(x),
    "UpSampling2D": lambda x: layers.UpSampling2D(2)(x),
    "UpSampling2D bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "ZeroPadding2D": lambda x: layers.ZeroPadding2D(1)(x),
    "ops.average_pool": lambda x: ops.average_pool(x, 2, 2),
    "ops.depth_to_space": lambda x: ops.depth_to_space(x, 2),
    "ops.max_pool": lambda x: ops.max_pool(x, 2, 2),
    "ops.image.resize": lambda x: ops.image.resize(x, (9, 9)),
    "ops.image.resize nearest": lambda x: ops.image.resize(x, (12, 12), interpolation="nearest"),
    "ops.moments": lambda x: sum(ops.moments(x, axes=[1, 2])),
    "ops.rot90": lambda x: ops.rot90(x, axes=(1, 2)),
    "ops.space_to_depth": lambda x: ops.space_to_depth(x, 2),
    "ops.swapaxes": lambda x: ops.swapaxes(x, 1, 3),
    "squeeze and excite": lambda x: x * ops.sigmoid(layers.Dense(CHANNELS)(ops.mean(x, axis=(1, 2), keepdims=True))),
}
#: By name, what takes sequences of `SEQUENCE` to floats.
SEQUENCES = {
    "AdaptiveAveragePooling1D": lambda x: layers.AdaptiveAveragePooling1D(3)(x),
    "AdditiveAttention": lambda x: layers.AdditiveAttention()([x, x]),
    "Attention": lambda x: layers.Attention()([x, x]),
    "AveragePooling1D": lambda x: layers.AveragePooling1D(2)(x),
    "Bidirectional": lambda x: layers.Bidirectional(layers.GRU(3, return_sequences=True))(x),
    "Conv1D": lambda x: layers.Conv1D(3, 3)(x),
    "Conv1D causal": lambda x: layers.Conv1D(3, 3, padding="causal", dilation_rate=2)(x),
    "Conv1DTranspose": lambda x: layers.Conv1DTranspose(3, 3, strides=2)(x),
    "Cropping1D": lambda x: layers.Cropping1D(1)(x),
    "DepthwiseConv1D": lambda x: layers.DepthwiseConv1D(3)(x),
    "Dot": lambda x: layers.Dot(axes=2)([x, x]),
    "GRU": lambda x: layers.GRU(3)(x),
    "GlobalAveragePooling1D": lambda x: layers.GlobalAveragePooling1D()(x),
    "GlobalMaxPooling1D": lambda x: layers.GlobalMaxPooling1D()(x),
    "GroupQueryAttention": lambda x: layers.GroupQueryAttention(2, 4, 2)(x, x),
    "LSTM": lambda x: layers.LSTM(3, return_sequences=True)(x),
    "MaxPooling1D": lambda x: layers.MaxPooling1D(2)(x),
    "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 2)(x, x),
    "Permute sequences": lambda x: layers.Permute((2, 1))(x),
    "SeparableConv1D": lambda x: layers.SeparableConv1D(3, 3)(x),
    "SimpleRNN": lambda x: layers.SimpleRNN(3)(x),
    "TimeDistributed": lambda x: layers.TimeDistributed(layers.Dense(3))(x),
    "UpSampling1D": lambda x: layers.UpSampling1D(2)(x),
    "ZeroPadding1D": lambda x: layers.ZeroPadding1D(1)(x),
}


def _convolution(x, **arguments):
    return (layers.Conv2D if x.ndim == 4 else layers.Conv1D)(CHANNELS, 3, padding="same", **arguments)(x)


#: By name, what makes the tensor that the operations read.
BEFORE = {
    "input": lambda x: x,
    "conv": lambda x: _convolution(x),
    "conv without bias": lambda x: _convolution(x, use_bias=False),
    "norm and relu": lambda x: layers.ReLU()(layers.BatchNormalization()(_convolution(x, use_bias=False))),
    "dense without bias": lambda x: layers.Dense(CHANNELS, use_bias=False)(x),
    "tanh": lambda x: ops.tanh(_convolution(x)),
    "sum": lambda x: layers.Add()([_convolution(x), layers.Dense(CHANNELS)(x)]),
    "turned": lambda x: ops.transpose(_convolution(x), (0, *range(x.ndim - 2, 0, -1), x.ndim - 1)),
    "flattened": lambda x: layers.Flatten()(_convolution(x)),
    "dense of steps": lambda x: layers.Dense(CHANNELS, activation="relu")(x),
    "lstm": lambda x: layers.LSTM(CHANNELS, return_sequences=True)(x),
}
#: By name, what becomes of the result `y`, and of the tensor `x` that the operations read: the outputs of the model.
AFTER = {
    "dense": lambda x, y: _dense(y),
    "output": lambda x, y: y,
    "read twice": lambda x, y: [_dense(y), x],
    "beside dense": lambda x, y: [y, layers.Dense(3)(x)],
    "between dense": lambda x, y: [_dense(y), layers.Dense(3)(x)],
}


def _dense(x):
    return layers.Dense(3)(layers.Flatten()(x) if x.ndim != 2 else x)


def between(before, names, after):
    """A model: what `before` makes, the operations one after the other, and what comes after them."""
    operations = [{**ANY, **IMAGES, **SEQUENCES}[name] for name in names]
    sequences = before in ("dense of steps", "lstm") or any(name in SEQUENCES for name in names)
    if sequences and any(name in IMAGES for name in names):
        raise ValueError("Operations on images do not take sequences")
    inputs = Input(SEQUENCE if sequences else SHAPE)
    x = y = BEFORE[before](inputs)
    for operation in operations:
        y = operation(y)
    if 0 in y.shape:
        raise ValueError("Nothing is left")
    return randomize(Model(inputs, AFTER[after](x, y)))


def data_for(model, count):
    """Inputs of such a model."""
    return np.random.default_rng(0).normal(size=(count, *model.input_shape[1:])).astype("float32")


@st.composite
def chains(draw):
    """The arguments of `between`, as a dict."""
    of_shape = draw(st.sampled_from([IMAGES, SEQUENCES]))
    names = st.sampled_from([*ANY, *of_shape, *of_shape])
    return {
        "before": draw(st.sampled_from(list(BEFORE))),
        "names": draw(st.lists(names, min_size=1, max_size=2)),
        "after": draw(st.sampled_from(list(AFTER))),
    }
