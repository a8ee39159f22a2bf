import keras
import numpy as np
import pytest
from blocks_with_weights import IMAGES, detector, transformer
from keras import layers, ops
from litert_files import assert_agrees, functional, kinds, quantized
from small_models import data_for, randomize

from tensorflow_quantization import QuantizationSpec
from tensorflow_quantization.export.litert import export_litert


def _conv(x, filters=4, **kwargs):
    return layers.Conv2D(filters, 3, padding="same", **kwargs)(x)


def _two_halves(x):
    return ops.split(_conv(x), 2, axis=-1)


def _csp_block(x, activation=None):
    """The C2f block of YOLO: two halves of a convolution, and their sum after another convolution."""
    a, b = ops.split(_conv(x, activation=activation), 2, axis=-1)
    return _conv(layers.Concatenate()([a, b, a + _conv(b, 2, activation=activation)]))


def _with_a_sum(x):
    a, b = _conv(x, activation="relu"), _conv(x, activation="relu")
    return layers.Concatenate()([a, a + b])


def _joined_twice(x):
    a = layers.Dense(4)(x)
    return layers.Dense(3)(layers.Concatenate()([layers.Maximum()([_conv(x), a]), a]))


def _joined_at_equal_scales(x):
    x = _conv(x)
    a = layers.Rescaling(0.5)(x)
    most = layers.Maximum()([x, a])
    return [most, layers.Dense(3)(layers.Concatenate()([most * 1.0, a]))]


#: Functions of the input whose tensors share integers: an operator of LiteRT only moves, joins or selects them.
SHARING = {
    "halves": lambda x: [_conv(y) for y in _two_halves(x)],
    "halves that are outputs": _two_halves,
    "sum of halves": lambda x: ops.add(*_two_halves(x)),
    "channels": lambda x: ops.stack(ops.unstack(_conv(x), axis=-1)[:2], axis=1),
    "block of YOLO": _csp_block,
    "block of YOLO with an activation": lambda x: _csp_block(x, "silu"),
    "concatenation with a sum of its part": _with_a_sum,
    "part of a maximum and of its concatenation": _joined_twice,
    "part of joins with scales that are equal": _joined_at_equal_scales,
    "maximum": lambda x: layers.Maximum()([_conv(x), _conv(x)]),
    "maximum of three": lambda x: _conv(ops.maximum(ops.maximum(_conv(x), _conv(x)), x)),
    "minimum of a tensor that another layer reads": lambda x: (
        lambda y: [_conv(layers.Minimum()([y, _conv(x)])), _conv(y)]
    )(_conv(x)),
    "maximum with a number": lambda x: ops.maximum(_conv(x), 0.1),
    "limits": lambda x: ops.clip(_conv(x), -0.5, 0.5),
    "choice": lambda x: ops.where(x[..., :1] > 0.0, _conv(x), 0.0),
    "largest of each channel": lambda x: layers.Dense(3)(layers.GlobalMaxPooling2D()(_conv(x))),
    "largest, as an operation": lambda x: _conv(ops.max(_conv(x), axis=(1, 2), keepdims=True)),
    "least of each row": lambda x: _conv(ops.amin(_conv(x), axis=1, keepdims=True)),
    "largest of each channel, as an operation": lambda x: layers.Dense(3)(ops.amax(_conv(x), axis=(1, 2))),
    "rows": lambda x: _conv(ops.take(_conv(x), [5, 1, 2], axis=1)),
    "averages of unequal windows": lambda x: layers.Dense(3)(layers.AdaptiveAveragePooling2D((3, 5))(_conv(x))),
    "resizing": lambda x: layers.Resizing(12, 12)(_conv(x)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", SHARING)
def test_operators_that_share_integers(tmp_path, name):
    inputs = keras.Input((8, 8, 4))
    model = quantized(randomize(keras.Model(inputs, SHARING[name](inputs))))
    if name == "choice":  # the comparison is computed in float
        from tensorflow_quantization.export.litert import export_litert

        export_litert(model, tmp_path / "m.tflite", verify_with=np.random.default_rng(0).normal(size=(4, 8, 8, 4)))
    else:
        assert_agrees(model, tmp_path / "m.tflite")


def test_constant_part_of_a_concatenation_has_the_scale_of_the_others(tmp_path):
    inputs = keras.Input(batch_shape=(2, 6, 8))
    joined = ops.concatenate([layers.Dense(8)(inputs), ops.full((2, 1, 8), 0.37)], 1)
    model = randomize(keras.Model(inputs, layers.Dense(3)(joined)))
    data = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")
    assert_agrees(quantized(model, data), tmp_path / "m.tflite", data)


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_masked_scores_beside_a_constant_are_computed_in_float(tmp_path):
    inputs = keras.Input(batch_shape=(2, 6, 8))
    scores = ops.where(np.tri(6, 8) > 0, layers.Dense(8)(inputs), -1e9)
    model = keras.Model(inputs, ops.softmax(ops.concatenate([scores, ops.zeros((2, 6, 1))], -1)))
    data = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")
    export_litert(quantized(randomize(model), data), tmp_path / "m.tflite", verify_with=data)


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_softmax_with_a_mask_is_computed_in_float(tmp_path):
    scores, mask = keras.Input((4, 8)), keras.Input((4, 4), dtype="bool")
    model = keras.Model([scores, mask], layers.Dense(3)(layers.Softmax()(layers.Dense(4)(scores), mask)))
    seen = np.repeat(np.tri(4, dtype=bool)[None], 2, 0)
    data = [np.random.default_rng(0).normal(size=(2, 4, 8)).astype("float32"), seen]
    export_litert(quantized(randomize(model), data), tmp_path / "m.tflite", verify_with=data)


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [2, (4, 1)])
def test_upsampling_of_an_unknown_size(tmp_path, interpolation, size):
    up = layers.UpSampling2D(size, interpolation=interpolation)
    model = functional(layers.Conv2D(4, 3), up, layers.Conv2D(2, 3), shape=(None, None, 3))
    x = np.random.default_rng(0).normal(size=(4, 9, 7, 3)).astype("float32")
    assert_agrees(quantized(model, x), tmp_path / "m.tflite", x)


def test_the_largest_channel_of_an_image_of_unknown_size(tmp_path):
    """Its range is smaller than the image's: two quantizers with an unknown number of values between them."""
    steps = [layers.Conv2D(4, 3), lambda x: ops.expand_dims(ops.max(x, axis=-1), -1), layers.Conv2D(2, 3)]
    x = np.random.default_rng(0).normal(size=(4, 9, 7, 3)).astype("float32")
    assert_agrees(quantized(functional(*steps, shape=(None, None, 3)), x), tmp_path / "m.tflite", x)


def _joined_after(layer, join):
    """Joins a tensor, whose scale another layer has, too, and what the layer makes of it, with another scale."""

    def step(x):
        x = layers.Dense(4)(x)
        return join([layers.Dense(4)(x), layer(x)])

    return step


MASKED = {
    "maximum": _joined_after(lambda x: x, layers.Maximum()),
    "minimum of sigmoid": _joined_after(layers.Activation("sigmoid"), layers.Minimum()),
    "concatenation": _joined_after(layers.ReLU(), layers.Concatenate()),
    "attention": lambda x: (lambda y: layers.MultiHeadAttention(2, 2)(y, y))(layers.Dense(4)(x)),
    "pooling": layers.GlobalAveragePooling1D(),
    "a layer of the user's": layers.Lambda(lambda x: x * 1.5),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("layer", MASKED)
@pytest.mark.parametrize("front", ["embedding", "masking"])
def test_masks_reach_the_layers_that_read_them(tmp_path, front, layer):
    if front == "embedding":
        x = inputs = keras.Input((5,), dtype="int32")
        x = layers.Embedding(9, 4, mask_zero=True)(x)
    else:
        x = inputs = keras.Input((5, 4))
        x = layers.Masking()(x)
    model = randomize(keras.Model(inputs, layers.Dense(3)(MASKED[layer](x))))
    data = np.random.default_rng(0).integers(1, 9, (4, *inputs.shape[1:]))
    data[:2, 3:] = 0
    data = data.astype(inputs.dtype)
    export_litert(quantized(model, data), tmp_path / "m.tflite", verify_with=data)


class _Scaled(layers.Layer):
    """Keras calls it "__scaled", which TensorFlow does not take as the first name of a scope."""

    def call(self, x):
        return x * ops.cast(ops.shape(x)[1], x.dtype)


def test_a_layer_whose_class_begins_with_an_underscore(tmp_path):
    model = quantized(functional(lambda x: _Scaled()(_conv(x))))
    export_litert(model, tmp_path / "m.tflite", verify_with=data_for(model))


class _Rectified(layers.Layer):
    def call(self, x):
        return ops.relu(x)


#: Operators that LiteRT fuses into the kernel before, or whose output has a scale of its own.
OWN_CODE = {
    "activation": lambda: _Rectified(),
    "limit": lambda: layers.Lambda(ops.relu6),
    "tanh": lambda: layers.Lambda(ops.tanh),
    "softmax": lambda: layers.Lambda(ops.softmax),
    "normalization": lambda: layers.Lambda(lambda x: ops.normalize(x, axis=-1)),
}


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", OWN_CODE)
def test_what_code_of_the_user_reads_is_rounded_before(tmp_path, name):
    model = quantized(functional(_conv, OWN_CODE[name](), _conv))
    export_litert(model, tmp_path / "m.tflite", verify_with=data_for(model))


TRANSPOSED = {
    "relu6": lambda x: layers.ReLU(6.0)(layers.Conv2DTranspose(4, 2, padding="same", use_bias=False)(x)),
    "argument": lambda x: layers.Conv2DTranspose(4, 3, strides=2, use_bias=False, activation="relu")(x),
    "linear": lambda x: layers.Conv2DTranspose(4, 3, strides=2, use_bias=False)(x),
    "output padding": lambda x: layers.Conv2DTranspose(
        4, 3, strides=2, output_padding=1, use_bias=False, activation="relu"
    )(x),
    "sequence": lambda x: layers.Conv1DTranspose(4, 3, strides=2, use_bias=False, activation="relu")(
        layers.Reshape((64, 4))(x)
    ),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions_without_a_bias_run_in_integers(tmp_path, name):
    def last(x):
        return layers.Dense(3)(x)

    model = quantized(functional(_conv, TRANSPOSED[name], last))
    assert "TRANSPOSE_CONV" in assert_agrees(model, tmp_path / "m.tflite")


def test_a_bias_of_zeros_changes_nothing(tmp_path):
    model = functional(_conv, lambda x: layers.Conv2DTranspose(4, 3, activation="relu", name="up")(x), _conv)
    model.get_layer("up").bias.assign(np.zeros(4))
    assert "TRANSPOSE_CONV" in assert_agrees(quantized(model), tmp_path / "m.tflite")


def _make_unequal(kernel):
    """Makes a few weights of a kernel large, so that 8 bits are not enough for the others."""
    kernel.assign(kernel.numpy() * np.exp(2 * np.random.default_rng(0).normal(size=kernel.shape)))


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_the_kernel_of_a_transposed_convolution_in_float_is_not_rounded(tmp_path):
    off = QuantizationSpec()
    off.add("float", quantize_input=False, quantize_weight=False)
    model = functional(_conv, lambda x: layers.Conv2DTranspose(16, 3, name="float")(_conv(x, 32)), _conv)
    _make_unequal(model.get_layer("float").kernel)
    export_litert(quantized(model, quantization_spec=off), tmp_path / "m.tflite", verify_with=data_for(model))


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_attention_that_returns_its_scores(tmp_path):
    inputs = keras.Input((6, 8))
    x, scores = layers.MultiHeadAttention(2, 4)(inputs, inputs, return_attention_scores=True)
    model = quantized(randomize(keras.Model(inputs, [layers.Dense(3)(x), scores])))
    export_litert(model, tmp_path / "m.tflite", verify_with=data_for(model))


FLOAT_WEIGHTS = {
    "conv": lambda: layers.Conv2D(8, 3, name="float"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, name="float"),
    "dense": lambda: layers.Dense(8, activation="relu", name="float"),
}


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", FLOAT_WEIGHTS)
def test_float_weights_between_integers_are_not_rounded(tmp_path, name):
    model = functional(_conv, FLOAT_WEIGHTS[name](), _conv)
    _make_unequal(model.get_layer("float").weights[0])
    spec = QuantizationSpec()
    spec.add("float", quantize_weight=False)
    model = quantized(model, quantization_spec=spec)
    export_litert(model, tmp_path / "m.tflite", verify_with=data_for(model))


class _Turned(layers.Layer):
    def call(self, inputs):
        import tensorflow as tf

        return tf.reverse(tf.transpose(inputs, (0, 2, 1, 3)), [1])


#: What code of the user does with the halves of a tensor whose second half is much smaller.
MOVES = {
    "slice": lambda x, i: layers.Lambda(lambda t: t[..., 4 * i : 4 * i + 4])(x),
    "split": lambda x, i: layers.Lambda(lambda t: ops.split(t, 2, axis=-1)[i])(x),
    "turn": lambda x, i: _Turned()(layers.Lambda(lambda t: t[..., 4 * i : 4 * i + 4])(x)),
    "pool": lambda x, i: layers.Lambda(lambda t: ops.max(t[..., 4 * i : 4 * i + 4], axis=1, keepdims=True))(x),
    "computes": lambda x, i: layers.Lambda(lambda t: ops.tanh(t) if i else t[..., :4])(x),
}


def _unequal_halves(move, second):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="halves")(inputs)
    first = layers.Conv2D(4, 1)(move(x, 0))
    model = randomize(keras.Model(inputs, layers.Conv2D(3, 1)(layers.Concatenate()([first, second(move(x, 1))]))))
    layer = model.get_layer("halves")
    layer.kernel.assign(layer.kernel.numpy() * np.repeat([1.0, 0.1], 4))
    layer.bias.assign(layer.bias.numpy() * np.repeat([1.0, 0.1], 4))
    return model


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("second", [lambda x: layers.Conv2D(4, 1)(x), lambda x: x], ids=["read", "joined"])
@pytest.mark.parametrize("move", MOVES)
def test_parts_that_code_of_the_user_moves_have_scales_of_their_own(tmp_path, move, second):
    model = quantized(_unequal_halves(MOVES[move], second))
    export_litert(model, tmp_path / "m.tflite", verify_with=data_for(model))


@pytest.mark.parametrize("model", [detector, transformer])
def test_blocks_with_weights_of_their_own_and_of_several_sizes(tmp_path, model):
    export_litert(quantized(model(), IMAGES), tmp_path / "m.tflite", verify_with=IMAGES)


@pytest.mark.parametrize("arguments", [{}, {"max_value": 6.0}, {"negative_slope": 0.1}])
def test_relu_as_a_function_is_fused_like_the_layer(tmp_path, arguments):
    def relu(x):
        return keras.activations.relu(x, **arguments)

    model = quantized(functional(_conv, relu, _conv))
    export_litert(model, tmp_path / "m.tflite", verify_with=data_for(model))
    assert "RELU" not in kinds(tmp_path / "m.tflite")
