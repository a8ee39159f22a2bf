import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from small_models import randomize

from tensorflow_quantization import calibrate, check_onnx, quantize_model


def verified(layer, shape, path):
    """The operators of a file of the layer and a Dense, which agrees with Keras in OpenVINO."""
    inputs = keras.Input(shape)
    model = randomize(keras.Model(inputs, layers.Dense(3)(layer(inputs))))
    x = np.random.default_rng(0).random((4, *shape), "float32")  # its zero point is 0
    made = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), x, verbose=0)
    proto = export(made, path, verify_with=x, verify_runtime="openvino")
    assert not check_onnx(path, "openvino").errors
    return op_counts(proto)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Conv1DTranspose(4, 1, strides=2), (8, 3)),
        (layers.Conv2DTranspose(4, 2, strides=3), (8, 8, 3)),
        (layers.Conv2DTranspose(4, 2, strides=3, padding="same"), (8, 8, 3)),
        (layers.Conv2DTranspose(4, (1, 3), strides=2), (8, 8, 3)),
        (layers.Conv3DTranspose(4, 1, strides=2), (4, 4, 4, 3)),
    ],
)
def test_points_that_no_input_reaches_have_the_bias(layer, shape, tmp_path):
    # Without the pass, OpenVINO leaves it out: verification fails.
    assert verified(layer, shape, tmp_path / "m.onnx")["Max"] == 1


def test_a_kernel_that_covers_all_points_needs_no_barrier(tmp_path):
    assert not verified(layers.Conv2DTranspose(4, 3, strides=3), (8, 8, 3), tmp_path / "m.onnx")["Max"]
