import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from small_models import randomize

from tensorflow_quantization import calibrate, quantize_model

X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")


def quantized(reduce, *before):
    """A reduction between float layers and a quantized Dense."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8, 8, 3))
    for layer in before:
        x = layer(x)
    model = keras.Model(inputs, layers.Dense(4)(reduce(x)))
    model = quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    return calibrate(model, X, verbose=0)


@pytest.mark.parametrize(
    ("reduce", "barrier"),
    [
        (lambda x: ops.max(x, axis=(1, 2)), "Squeeze"),
        (lambda x: ops.min(x, axis=-1), "Squeeze"),
        (lambda x: ops.amax(x, axis=-1, keepdims=True), "Max"),
        (layers.AdaptiveMaxPooling2D((3, 3)), "Max"),
        (lambda x: ops.relu(ops.max(x, axis=1)), "Squeeze"),
    ],
    ids=["max", "min", "keepdims", "adaptive", "relu"],
)
def test_a_maximum_of_floats(reduce, barrier, tmp_path):
    # Without the pass, OpenVINO rounds the maximum to whole numbers: verification fails.
    model = quantized(reduce, layers.LayerNormalization())
    proto = export(model, tmp_path / "m.onnx", verify_with=X, verify_runtime="openvino")
    assert op_counts(proto)[barrier] > 0


def test_the_mean_of_a_product_without_a_bias(tmp_path):
    model = quantized(lambda x: ops.mean(x, axis=(1, 2)), layers.Dense(6, use_bias=False))
    proto = export(model, tmp_path / "m.onnx", verify_with=X, verify_runtime="openvino")
    assert op_counts(proto)["Squeeze"] == 1


def test_no_barrier_where_openvino_is_right(tmp_path):
    model = quantized(lambda x: ops.mean(x, axis=(1, 2)), layers.LayerNormalization())
    counts = op_counts(export(model, tmp_path / "m.onnx", verify_with=X, verify_runtime="openvino"))
    assert counts["Max"] == counts["Squeeze"] == 0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: layers.BatchNormalization()(ops.mean(ops.tanh(x), axis=(1, 2))),
        lambda x: layers.BatchNormalization()(ops.sum(layers.Dense(4)(x), axis=(1, 2))),
        lambda x: ops.mean(ops.tanh(x), axis=1) * np.linspace(0.1, 3, 7, dtype="float32").reshape(7, 1),
    ],
    ids=["mean", "sum", "rows"],
)
def test_constants_of_channels_after_a_reduction(function, tmp_path):
    # Without the pass, OpenVINO applies the constants to the rows of the image.
    inputs = keras.Input((6, 7, 4))
    model = randomize(keras.Model(inputs, layers.Dense(3)(function(inputs))))
    x = np.random.default_rng(0).normal(size=(4, 6, 7, 4)).astype("float32")
    quantized = quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    proto = export(calibrate(quantized, x, verbose=0), tmp_path / "m.onnx", verify_with=x, verify_runtime="openvino")
    assert op_counts(proto)["Squeeze"] == 1
