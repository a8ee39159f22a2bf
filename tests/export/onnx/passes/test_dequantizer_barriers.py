import keras
import numpy as np
import pytest
from keras import layers, ops
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from small_models import randomize

from tensorflow_quantization import calibrate, quantize_model

X = np.random.default_rng(0).normal(size=(4, 7, 4)).astype("float32")


@pytest.mark.parametrize("target", ["openvino", None])
@pytest.mark.parametrize("reduce", [ops.mean, ops.sum], ids=["mean", "sum"])
def test_reductions_of_the_steps_that_a_dense_layer_reads(reduce, target, tmp_path):
    # Without the pass, OpenVINO returns the right numbers for the first sample of a batch only.
    inputs = keras.Input((7, 4))
    x = layers.Dense(4, activation="relu")(inputs)
    model = randomize(keras.Model(inputs, [reduce(x, axis=1), layers.Dense(3)(x)]))
    quantized = calibrate(quantize_model(model, target=target, weight_bits=EXACT_WEIGHT_BITS), X, verbose=0)
    proto = export(quantized, tmp_path / "m.onnx", verify_with=X, verify_runtime="openvino")
    assert op_counts(proto)["Max"] == 1
