import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from user_models import build, data_for

from tensorflow_quantization import calibrate, quantize_model

X = np.random.default_rng(0).normal(size=(4, 9, 3)).astype("float32")


def network(*following, use_bias=True):
    """A Conv1D and what follows; all weights differ."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 3))
    x = layers.Conv1D(4, 3, padding="same", use_bias=use_bias)(inputs)
    for layer in following:
        x = layer(x)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.3, 2, w.shape).astype("float32") for w in model.get_weights()])
    return model


def quantized(model, x):
    model = quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    return calibrate(model, x, verbose=0)


def maximum(x):
    return keras.ops.max(x, axis=1)


def barriers(model, path, x=X, **options):
    """The number of MaxPools in the file, which OpenVINO computes like Keras."""
    return op_counts(export(model, path, verify_with=x, verify_runtime="openvino", **options))["MaxPool"]


@pytest.mark.parametrize("target", [None, "openvino"])
@pytest.mark.parametrize("reduce", [layers.GlobalAveragePooling1D(keepdims=True), maximum], ids=["mean", "maximum"])
def test_channels_are_scaled_after_a_reduction(reduce, target, tmp_path):
    # Without the pass, OpenVINO scales the sequences of the batch: verification fails.
    assert barriers(network(reduce, layers.BatchNormalization()), tmp_path / "m.onnx", target=target) == 1


@pytest.mark.parametrize(
    "following",
    [
        (layers.ReLU(), layers.GlobalAveragePooling1D(), layers.Dense(2)),
        (layers.ReLU(), maximum),
    ],
    ids=["mean", "output"],
)
def test_scales_of_weights_stay_before_a_reduction(following, tmp_path):
    model = quantized(network(*following, use_bias=False), X)
    assert barriers(model, tmp_path / "m.onnx") == 1


def test_a_batch_normalization_stays_before_a_mean(tmp_path):
    """A model that `test_user_models.py` drew."""
    case = {"kind": "sequences", "dynamic": False, "steps": [("conv1d", 0, 0), ("batch_norm", 0, 0)]}
    model, x = build(**case, outputs="dict", policy="float32"), data_for("sequences", 4)
    assert barriers(quantized(model, x), tmp_path / "m.onnx", x) == 1


def test_no_barrier_where_openvino_is_right(tmp_path):
    flat = network(layers.GlobalAveragePooling1D(), layers.BatchNormalization())
    assert barriers(flat, tmp_path / "flat.onnx", target="openvino") == 0
    biased = quantized(network(layers.ReLU(), layers.GlobalAveragePooling1D(), layers.Dense(2)), X)
    assert barriers(biased, tmp_path / "biased.onnx") == 0


def test_a_file_for_another_runtime_has_no_barrier(tmp_path):
    model = network(maximum, layers.BatchNormalization())
    assert op_counts(export(model, tmp_path / "m.onnx", target="onnxruntime", verify_with=X))["MaxPool"] == 0
