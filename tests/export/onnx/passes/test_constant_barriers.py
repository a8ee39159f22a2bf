import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import export
from processor import EXACT_WEIGHT_BITS
from small_models import randomize

from tensorflow_quantization import calibrate, quantize_model

STEPS = np.linspace(0.1, 1, 7, dtype="float32").reshape(7, 1)
ROWS = np.linspace(0.1, 1, 6, dtype="float32").reshape(6, 1, 1)


@pytest.mark.parametrize("target", ["openvino", None])
@pytest.mark.parametrize(
    ("shape", "function"),
    [
        ((7, 4), lambda x: x * STEPS),
        ((7, 4), lambda x: x / STEPS),
        ((6, 7, 4), lambda x: x * ROWS),
    ],
    ids=["factors", "divisors", "rows"],
)
def test_constants_of_positions_after_a_dense_layer(shape, function, target, tmp_path):
    # Without the pass, OpenVINO applies them to the units, or does not load the file.
    inputs = keras.Input(shape)
    x = layers.Dense(6)(layers.Dense(4, activation="relu")(inputs))
    model = randomize(keras.Model(inputs, function(x)))
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    quantized = quantize_model(model, target=target, weight_bits=EXACT_WEIGHT_BITS)
    path = tmp_path / "m.onnx"
    export(calibrate(quantized, x, verbose=0), path, verify_with=x, verify_runtime="openvino")
