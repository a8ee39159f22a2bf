"""Whole networks of `keras.applications`, on small images."""

import keras
import numpy as np
import pytest
from onnx_models import assert_agrees, export, op_counts

from tensorflow_quantization import calibrate, quantize_model

NETWORKS = {
    "ResNet50": 64,
    "ResNet50V2": 64,
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "EfficientNetB0": 64,
    "InceptionV3": 96,
}


def randomized(name, size):
    """The network with batch normalization statistics that matter, and outputs of ordinary size."""
    keras.utils.clear_session()
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        kind = weight.path.rsplit("/", 1)[-1]
        if kind in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif kind in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_float_and_quantized_network(tmp_path, name):
    size = NETWORKS[name]
    model = randomized(name, size)
    x = np.random.default_rng(1).uniform(0, 255, (2, size, size, 3)).astype("float32")
    counts = op_counts(assert_agrees(model, tmp_path / "float.onnx", [x]))
    assert counts["Transpose"] == 1
    if name != "ResNet50V2":  # where they come before the convolutions
        assert counts["BatchNormalization"] == counts["Pad"] == 0

    quantized = quantize_model(model)
    calibrate(quantized, x)
    proto = export(quantized, tmp_path / "int8.onnx", verify_with=x)
    assert op_counts(proto)["Transpose"] == 1
    producers = {output: node.op_type for node in proto.graph.node for output in node.output}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            assert [producers[i] for i in node.input[:2]] == ["DequantizeLinear"] * 2
    assert (tmp_path / "int8.onnx").stat().st_size < 0.3 * (tmp_path / "float.onnx").stat().st_size


@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_openvino_reads_the_file(tmp_path, kind):
    openvino = pytest.importorskip("openvino")
    model = randomized("MobileNetV2", 64)
    x = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    if kind == "quantized":
        model = quantize_model(model)
        calibrate(model, x)
    export(model, tmp_path / "m.onnx")
    compiled = openvino.compile_model(tmp_path / "m.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    actual = compiled(x)[0]
    expected = model.predict(x, verbose=0)
    assert np.abs(actual - expected).max() <= (1e-4 if kind == "float" else 0.1) * expected.max()
