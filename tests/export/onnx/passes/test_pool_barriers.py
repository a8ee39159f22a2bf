import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, quantize_model

X = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")


def pooled(activation):
    """A convolution, a pool of what it computes in float, and an activation."""
    inputs = keras.Input((6, 6, 3))
    x = layers.MaxPooling2D(3, 1, padding="same")(layers.Conv2D(4, 3, padding="same")(inputs))
    return keras.Model(inputs, layers.Activation(activation)(x))


def frames():
    """The same for each frame of a video: Keras moves axes between convolution, pool and activation."""
    inputs = keras.Input((3, 6, 6, 3))
    x = layers.TimeDistributed(layers.Conv2D(4, 3, padding="same"))(inputs)
    x = layers.TimeDistributed(layers.MaxPooling2D(3, 1, padding="same"))(x)
    return keras.Model(inputs, layers.Activation("gelu")(x))


@pytest.mark.parametrize("target", [None, "openvino"])
@pytest.mark.parametrize("activation", ["gelu", "hard_silu", "mish", "silu"])
def test_an_activation_is_computed_after_the_pool(activation, target, tmp_path):
    # Without the pass, OpenVINO computes it before: verification fails.
    proto = export(pooled(activation), tmp_path / "m.onnx", target=target, verify_with=X, verify_runtime="openvino")
    assert op_counts(proto)["MaxPool"] == 2


def test_a_monotonic_activation_needs_no_barrier(tmp_path):
    proto = export(pooled("sigmoid"), tmp_path / "m.onnx", target="openvino", verify_with=X, verify_runtime="openvino")
    assert op_counts(proto)["MaxPool"] == 1


def test_a_file_for_another_runtime_has_no_barrier(tmp_path):
    proto = export(pooled("silu"), tmp_path / "m.onnx", target="onnxruntime", verify_with=X)
    assert op_counts(proto)["MaxPool"] == 1


@pytest.mark.parametrize("quantized", [False, True])
def test_frames_of_a_video(quantized, tmp_path):
    model, x = frames(), np.stack([X, X + 1, 2 * X], 1)
    if quantized:
        model = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), x, verbose=0)
    export(model, tmp_path / "m.onnx", target="openvino", verify_with=x, verify_runtime="openvino")
