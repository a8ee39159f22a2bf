import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from small_models import randomize
from user_models import build, data_for

from tensorflow_quantization import calibrate, quantize_model

X = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")

#: What reads a convolution without a bias that the model also returns.
READERS = {
    "relu": lambda x: layers.Conv2D(3, 1)(layers.ReLU()(x)),
    "normalization": lambda x: layers.Conv2D(3, 1)(layers.ReLU()(layers.BatchNormalization()(x))),
    "both signs": lambda x: layers.Conv2D(3, 1)(layers.Concatenate()([x, -x])),
    "activations": lambda x: [layers.ReLU()(x), layers.Activation("sigmoid")(x)],
}


def quantized(build, **arguments):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", **arguments)(inputs)
    model = randomize(keras.Model(inputs, [x, build(x)]))
    return calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), X, verbose=0)


@pytest.mark.parametrize("name", READERS)
def test_each_reader_gets_the_scaled_sums(name, tmp_path):
    # Without the pass, OpenVINO leaves the scales out for one of them: verification fails.
    model = quantized(READERS[name], use_bias=False)
    proto = export(model, tmp_path / "m.onnx", target="openvino", verify_with=X, verify_runtime="openvino")
    assert op_counts(proto)["Max"] == 1


def test_a_transposed_convolution_and_its_mean(tmp_path):
    """A model that `test_user_models.py` drew."""
    steps = [("dense_relu", 0, 0), ("transposed_plain", 0, 0)]
    model = build(kind="images", dynamic=False, steps=steps, outputs="list", policy="float32")
    x = data_for("images", 4)
    model = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), x, verbose=0)
    proto = export(model, tmp_path / "m.onnx", verify_with=x, verify_runtime="openvino")
    assert op_counts(proto)["Max"] == 1


def test_a_bias_needs_no_barrier(tmp_path):
    model = quantized(READERS["relu"])
    proto = export(model, tmp_path / "m.onnx", target="openvino", verify_with=X, verify_runtime="openvino")
    assert op_counts(proto)["Max"] == 0


def test_an_output_of_the_graph_keeps_its_name(tmp_path):
    inputs = keras.Input((3, 6, 6))
    x = layers.Conv2D(4, 3, use_bias=False, data_format="channels_first", name="features")(inputs)
    model = keras.Model(inputs, {"features": x, "positive": layers.ReLU()(x)})
    made = calibrate(
        quantize_model(randomize(model), weight_bits=EXACT_WEIGHT_BITS), X.transpose(0, 3, 1, 2), verbose=0
    )
    proto = export(made, tmp_path / "m.onnx", verify_with=X.transpose(0, 3, 1, 2))
    assert sorted(output.name for output in proto.graph.output) == ["features", "positive"]
    assert op_counts(proto)["Max"] == 1
