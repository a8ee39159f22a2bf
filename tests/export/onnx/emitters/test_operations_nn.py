import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, export, op_counts, run, skip_on_torch, skip_unless_computable

rng = np.random.default_rng(0)


def array(*shape):
    return rng.normal(size=shape).astype("float32")


KERNEL = keras.Variable(array(3, 3, 4, 6), name="kernel")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.conv(x, KERNEL),
        lambda x: ops.conv(x, KERNEL, strides=2, padding="same"),
        lambda x: ops.conv(x, KERNEL, dilation_rate=2, data_format="channels_last"),
        lambda x: ops.depthwise_conv(x, array(3, 3, 4, 2), padding="same"),
        lambda x: ops.separable_conv(x, array(3, 3, 4, 2), array(1, 1, 8, 5)),
        lambda x: ops.max_pool(x, 2),
        lambda x: ops.max_pool(x, (3, 2), strides=1, padding="same"),
        lambda x: ops.average_pool(x, 3, 2),
        lambda x: ops.image.resize(x, (12, 9)),
        lambda x: ops.image.resize(x, (4, 5), interpolation="nearest"),
        lambda x: ops.layer_normalization(x, np.ones(4, "float32") * 2, np.ones(4, "float32"), axis=-1),
        lambda x: ops.layer_normalization(x, axis=-1),
        lambda x: ops.rms_normalization(x, np.arange(4, dtype="float32"), axis=-1),
        lambda x: ops.normalize(x),
        lambda x: ops.normalize(x, axis=(1, 2)),
        lambda x: ops.normalize(x, order=3),
        lambda x: ops.batch_normalization(x, array(4), array(4) ** 2, axis=-1),
        lambda x: ops.batch_normalization(x, array(4), array(4) ** 2, -1, array(4), array(4), 1e-2),
        lambda x: ops.batch_normalization(x, *ops.moments(x, (0, 1, 2)), axis=-1),
        lambda x: ops.moments(x, axes=(1, 2)),
        lambda x: ops.moments(x, axes=-1, keepdims=True),
    ],
)
@pytest.mark.parametrize("behind_a_convolution", [False, True])
def test_on_images(tmp_path, function, behind_a_convolution):
    inputs = keras.Input((8, 7, 4))
    x = layers.Conv2D(4, 3, padding="same")(inputs) if behind_a_convolution else inputs
    model = keras.Model(inputs, function(x))
    skip_unless_computable(model)
    assert_agrees(model, tmp_path / "m.onnx")


@pytest.mark.parametrize("scale", [None, "constant", "tensor"])
def test_rms_normalization_as_one_operator(tmp_path, scale):
    inputs = [keras.Input((5, 4)), keras.Input((1, 4))]
    factor = {None: None, "constant": array(4), "tensor": inputs[1]}[scale]
    model = keras.Model(inputs, ops.rms_normalization(inputs[0], factor, axis=-1) + inputs[1])
    skip_unless_computable(model)
    assert op_counts(assert_agrees(model, tmp_path / "m.onnx", opset=23))["RMSNormalization"] == 1


def test_average_pooling_does_not_count_padding(tmp_path):
    skip_on_torch("average pooling counts it")
    inputs = keras.Input((8, 7, 4))
    assert_agrees(keras.Model(inputs, ops.average_pool(inputs, 3, 2, padding="same")), tmp_path / "m.onnx")


def test_count_nonzero(tmp_path):
    skip_on_torch("counting gives another shape")
    inputs = keras.Input((4, 3))
    assert_agrees(keras.Model(inputs, ops.count_nonzero(ops.relu(inputs), axis=1)), tmp_path / "m.onnx")


def test_a_kernel_that_is_computed(tmp_path):
    inputs = [keras.Input((8, 8, 4)), keras.Input(batch_shape=(3, 3, 4, 6))]
    model = keras.Model(inputs, ops.conv(inputs[0], inputs[1] * 2))
    arrays = [array(2, 8, 8, 4), array(3, 3, 4, 6)]
    assert_agrees(model, tmp_path / "m.onnx", arrays)


def test_a_convolution_stays_next_to_the_others(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = ops.relu(ops.conv(layers.Conv2D(4, 3)(inputs), KERNEL))
    counts = op_counts(assert_agrees(keras.Model(inputs, x), tmp_path / "m.onnx"))
    assert counts["Transpose"] == 2


@pytest.mark.parametrize(
    "function", [ops.std, ops.var, ops.prod, ops.logsumexp, ops.any, ops.all, ops.argmax, ops.argmin]
)
@pytest.mark.parametrize("axis", [-1, 1, None])
@pytest.mark.parametrize("keepdims", [True, False])
def test_reduction(tmp_path, function, axis, keepdims):
    if axis is None and keepdims:
        skip_on_torch("the axes of a reduction over all of them are not kept")
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 2)(inputs)
    x = ops.relu(x) if function in (ops.any, ops.all) else x
    assert_agrees(keras.Model(inputs, function(x, axis=axis, keepdims=keepdims)), tmp_path / "m.onnx")


@pytest.mark.parametrize("extreme", [-np.inf, np.inf, 1e4, -1e4])
def test_logsumexp_of_extreme_values(tmp_path, extreme):
    inputs = keras.Input((4, 3))
    x = array(2, 4, 3)
    x[0, 1] = x[1, 2, 0] = extreme
    export(keras.Model(inputs, ops.logsumexp(inputs, axis=2)), tmp_path / "m.onnx")
    (actual,) = run(tmp_path / "m.onnx", [x])
    np.testing.assert_allclose(actual, np.logaddexp.reduce(x, axis=2), rtol=1e-5)


def test_logsumexp_in_openvino(tmp_path):
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, ops.logsumexp(inputs, axis=2))
    export(model, tmp_path / "m.onnx", target="openvino", verify_with=array(2, 4, 3), verify_runtime="openvino")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.norm(x, axis=-1),
        lambda x: ops.norm(x, ord=1, axis=1, keepdims=True),
        lambda x: ops.norm(x, ord=float("inf"), axis=1),
        lambda x: ops.norm(x, ord=3, axis=1),
        lambda x: ops.norm(x, axis=(1, 2)),
        lambda x: ops.average(x, axis=1),
        lambda x: ops.average(x, axis=1, weights=np.array([1.0, 2, 3, 4], "float32")),
        lambda x: ops.amax(x, axis=1),
        lambda x: ops.amin(x, axis=(1, 2)),
        lambda x: ops.std(x, axis=(1, 2)),
    ],
)
def test_further_reductions(tmp_path, function):
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, function(inputs))
    skip_unless_computable(model)
    assert_agrees(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: ops.einsum("bij,bkj->bik", a, b),
        lambda a, b: ops.einsum("bij,bkj->bki", a, b),
        lambda a, b: ops.einsum("bij,bkj", a, b),
        lambda a, b: ops.einsum("b...j,b...j->b...", a, b),
        lambda a, b: ops.einsum("bij,bij->bi", a, b),
        lambda a, b: ops.einsum("bij,jk->bik", a, array(5, 6)),
        lambda a, b: ops.einsum("bij->bji", a),
        lambda a, b: ops.dot(a, array(5, 2)),
        lambda a, b: ops.dot(a, array(5)),
        lambda a, b: ops.dot(a, array(3, 5, 2)),
        lambda a, b: ops.dot(a, 2.0),
        lambda a, b: ops.tensordot(a, array(3, 5, 2), 2),
        lambda a, b: ops.tensordot(a, array(5, 2), [[2], [0]]),
        lambda a, b: ops.tensordot(a, array(2, 3), [[1], [1]]),
        lambda a, b: ops.inner(a, array(2, 5)),
        ops.vdot,
        ops.outer,
        lambda a, b: ops.matmul(a, ops.transpose(b, (0, 2, 1))),
    ],
)
def test_products(tmp_path, function):
    inputs = [keras.Input((3, 5)), keras.Input((3, 5))]
    model = keras.Model(inputs, function(*inputs))
    skip_unless_computable(model)
    assert_agrees(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "arguments", [{}, {"is_causal": True}, {"scale": 0.5}, {"mask": np.arange(25).reshape(1, 1, 5, 5) % 3 > 0}]
)
def test_attention(tmp_path, arguments):
    inputs = [keras.Input((5, 2, 4)) for _ in range(3)]
    model = keras.Model(inputs, ops.dot_product_attention(*inputs, **arguments))
    assert_agrees(model, tmp_path / "m.onnx")
