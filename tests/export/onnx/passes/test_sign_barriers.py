import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from small_models import randomize

from tensorflow_quantization import calibrate, check_onnx, quantize_model

X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
FACTORS = np.linspace(-1, 1, 4, dtype="float32")


def convolved(x, activation="relu"):
    return layers.Conv2D(4, 3, padding="same", activation=activation, use_bias=False)(x)


NEGATIVE = {
    "negated": lambda x: -convolved(x),
    "factors": lambda x: convolved(x) * FACTORS,
    "quotient": lambda x: convolved(x) / -2.0,
    "subtracted": lambda x: convolved(x, None) - convolved(x),
    "of_itself": lambda x: (y := convolved(x)) - convolved(y),
    "leaky": lambda x: -layers.LeakyReLU(0.2)(convolved(x, None)),
    "prelu": lambda x: -layers.PReLU(keras.initializers.Constant(-0.3), shared_axes=(1, 2))(convolved(x, None)),
    "moved": lambda x: -layers.Permute((2, 1, 3))(convolved(x)),
    "padded": lambda x: -layers.ZeroPadding2D(1)(convolved(x)),
    "mean": lambda x: -ops.mean(convolved(x), axis=(1, 2), keepdims=True),
    "shared": lambda x: layers.Concatenate()([-(y := convolved(x)), y]),
    "part": lambda x: -ops.split(convolved(x), 2, axis=-1)[0],
    "depthwise": lambda x: -layers.ReLU()(layers.DepthwiseConv2D(3, use_bias=False)(x)),
    "transposed": lambda x: -layers.Conv2DTranspose(4, 2, activation="relu", use_bias=False)(x),
    "one_dimension": lambda x: -layers.Conv1D(4, 3, activation="relu", use_bias=False)(layers.Reshape((64, 3))(x)),
}
#: OpenVINO computes these as they stand.
OTHERS = {
    "biased": lambda x: -layers.Conv2D(4, 3, activation="relu")(x),
    "of_one": lambda x: 1 - convolved(x),
    "positive": lambda x: convolved(x) * 0.5,
    "relu6": lambda x: -layers.ReLU(6.0)(convolved(x, None)),
    "dense": lambda x: -layers.Dense(4, activation="relu")(x),
}


def quantized(function, target):
    inputs = keras.Input(X.shape[1:])
    y = function(inputs)
    model = randomize(keras.Model(inputs, layers.Dense(3)(y)))
    made = quantize_model(model, target=target, weight_bits=EXACT_WEIGHT_BITS)
    return calibrate(made, X, verbose=0)


@pytest.mark.parametrize("target", [None, "openvino"])
@pytest.mark.parametrize("name", NEGATIVE)
def test_a_negative_factor_is_applied_after_the_activation(name, target, tmp_path):
    # Without the pass, OpenVINO applies it before.
    model = quantized(NEGATIVE[name], target)
    export(model, tmp_path / "m.onnx", verify_with=X, verify_runtime="openvino")
    assert not check_onnx(tmp_path / "m.onnx", "openvino").errors


@pytest.mark.parametrize("name", OTHERS)
def test_others_need_no_barrier(name, tmp_path):
    model = quantized(OTHERS[name], "openvino")
    proto = export(model, tmp_path / "m.onnx", verify_with=X, verify_runtime="openvino")
    assert not op_counts(proto)["Max"]


def test_a_file_for_another_runtime_has_no_barrier(tmp_path):
    proto = export(quantized(NEGATIVE["negated"], "onnxruntime"), tmp_path / "m.onnx", verify_with=X)
    assert not op_counts(proto)["Max"]
