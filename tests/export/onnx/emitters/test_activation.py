import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, layer_model, op_counts
from small_models import randomize

ACTIVATIONS = """
    relu relu6 sigmoid tanh swish silu hard_sigmoid hard_swish hard_silu gelu softplus softsign elu selu
    exponential linear leaky_relu mish softmax log_softmax celu log_sigmoid hard_tanh tanh_shrink soft_shrink
    hard_shrink squareplus sparse_plus sparse_sigmoid
""".split()  # noqa: SIM905 (a list of thirty lines says no more)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("opset", [13, 20])
def test_activation_by_name(tmp_path, name, opset):
    assert_agrees(layer_model(layers.Activation(name), (5, 6)), tmp_path / "m.onnx", opset=opset)


@pytest.mark.parametrize("name", ["relu", "gelu", "softmax"])
def test_activation_argument_of_a_convolution(tmp_path, name):
    assert_agrees(layer_model(layers.Conv2D(4, 3, activation=name), (6, 5, 3)), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "layer",
    [
        *(
            layers.ReLU(max_value=m, negative_slope=s, threshold=t)
            for m in (None, 1.5)
            for s in (0, 0.3)
            for t in (0, 0.5)
        ),
        layers.ReLU(6.0),
        layers.LeakyReLU(0.1),
        layers.PReLU(),
        layers.PReLU(shared_axes=[1]),
        layers.ELU(0.5),
        layers.Softmax(),
        layers.Softmax(axis=1),
        layers.Softmax(axis=(1, 2)),
    ],
)
def test_activation_layer(tmp_path, layer):
    layer = type(layer).from_config(layer.get_config())  # each test builds its own
    assert_agrees(layer_model(layer, (5, 6)), tmp_path / "m.onnx")


@pytest.mark.parametrize("layer", [layers.PReLU, layers.Softmax, lambda: layers.Softmax(axis=(1, 2))])
def test_activation_layer_between_convolutions_needs_no_transpose(tmp_path, layer):
    inputs = keras.Input((8, 7, 3))
    x = layers.Conv2D(2, 3)(layer()(layers.Conv2D(4, 3)(inputs)))
    proto = assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx")
    assert op_counts(proto)["Transpose"] == 2  # in and out


def test_a_mask_of_another_layout(tmp_path):
    queries, mask = keras.Input((5, 8, 4)), keras.Input((5, 5))
    scores = ops.einsum("bqnh,bknh->bnqk", queries, queries) + ops.transpose(mask[:, None, :1], [0, 2, 1, 3])
    model = keras.Model([queries, mask], layers.Softmax()(scores, ops.transpose(mask[..., None], [0, 3, 1, 2])))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, 5, 8, 4)).astype("float32"), np.tril(np.ones((2, 5, 5), "float32"))]
    assert_agrees(model, tmp_path / "m.onnx", arrays)


def test_activation_layer_behind_a_flattened_image(tmp_path):
    inputs = keras.Input((5, 4, 3))
    x = layers.Flatten()(layers.Conv2D(2, 3)(inputs))
    x = layers.Dense(3)(layers.Softmax()(layers.PReLU()(x)))
    assert op_counts(assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx"))["Transpose"] == 1


@pytest.mark.parametrize("approximate", [True, False])
@pytest.mark.parametrize("opset", [13, 20])
def test_gelu_in_both_forms(tmp_path, approximate, opset):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.ops.gelu(inputs, approximate=approximate))
    assert_agrees(model, tmp_path / "m.onnx", opset=opset)


def test_a_layer_as_activation(tmp_path):
    layer = layers.Dense(4, activation=layers.LeakyReLU(0.3))
    assert op_counts(assert_agrees(layer_model(layer, (5,)), tmp_path / "m.onnx")) == {"Gemm": 1, "LeakyRelu": 1}


@pytest.mark.parametrize("function", [keras.ops.relu, keras.ops.silu, keras.ops.gelu, keras.ops.softmax])
def test_a_function_of_keras_ops_as_activation(tmp_path, function):
    assert_agrees(layer_model(layers.Dense(4, activation=function), (5,)), tmp_path / "m.onnx")
