import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from user_models import build, data_for

from tensorflow_quantization import calibrate, quantize_model

X = np.random.default_rng(0).uniform(-0.1, 0.1, (4, 6, 8)).astype("float32")


def exported(model, x, path):
    """The file of the quantized model, which OpenVINO computes like Keras."""
    quantized = quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    return op_counts(export(calibrate(quantized, x, verbose=0), path, verify_with=x, verify_runtime="openvino"))


@pytest.mark.parametrize(
    ("scale", "normalization", "count"),
    [
        (lambda x: x * 0.1, layers.LayerNormalization(), 1),
        (layers.Rescaling(0.1), layers.GroupNormalization(2), 1),
        (layers.Conv1D(8, 3, use_bias=False), layers.GroupNormalization(8), 1),
        (layers.Activation("tanh"), layers.LayerNormalization(), 0),
    ],
    ids=["mul", "groups", "convolution", "no factor"],
)
def test_factors_matter_before_a_normalization(scale, normalization, count, tmp_path):
    # Without the pass, OpenVINO drops the factor, as if epsilon were 0: verification fails.
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.Dense(4)(normalization(scale(inputs))))
    assert exported(model, X, tmp_path / "m.onnx")["Max"] == count


def test_an_average_before_a_normalization(tmp_path):
    """A model that `test_user_models.py` drew."""
    steps = [("average", 0, 0), ("layer_norm", 0, 0)]
    model = build(kind="sequences", dynamic=False, steps=steps, outputs="one", policy="float32")
    assert exported(model, data_for("sequences", 4), tmp_path / "m.onnx")["Max"] == 1
