"""From real images to a runtime: Keras and the runtime, stock, name the same class."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, export_onnx, quantize_model

#: Of how many images one may differ.
ONE_IN = 2000


def convolution(x, filters, strides=1):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


@pytest.fixture(scope="module")
def trained(fashion_mnist):
    """A residual network and a classifier, trained for an epoch."""
    (x, y), _ = fashion_mnist
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    x0 = layers.ReLU()(convolution(inputs, 8, strides=2))
    x1 = layers.ReLU()(convolution(x0, 8))
    x2 = layers.ReLU()(layers.Add()([x0, convolution(x1, 8)]))
    x3 = layers.ReLU()(convolution(x2, 16, strides=2))
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x3)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(x[:30_000], y[:30_000], batch_size=128, verbose=0)
    return model


def in_onnxruntime(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def in_openvino(path, images):
    import openvino

    return openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)[0]


@pytest.mark.parametrize(
    ("target", "run"),
    [
        pytest.param(None, in_onnxruntime, id="default in ONNX Runtime", marks=pytest.mark.slow),
        pytest.param("tensorrt", in_onnxruntime, id="tensorrt in ONNX Runtime", marks=pytest.mark.slow),
        pytest.param("onnxruntime", in_onnxruntime, id="onnxruntime"),
        pytest.param("openvino", in_openvino, id="openvino", marks=pytest.mark.slow),
    ],
)
def test_same_answers_on_real_images(trained, fashion_mnist, tmp_path, target, run):
    (x, y), (x_test, y_test) = fashion_mnist
    quantized = calibrate(quantize_model(trained, target=target, weight_bits=EXACT_WEIGHT_BITS), x[:1000], verbose=0)
    accuracies = []
    for _ in range(2):
        export_onnx(quantized, tmp_path / "m.onnx", verify_with=x_test[:20])
        answers = quantized.predict(x_test, batch_size=1000, verbose=0).argmax(-1)
        batches = np.array_split(x_test, 10)
        found = np.concatenate([run(tmp_path / "m.onnx", batch) for batch in batches]).argmax(-1)
        assert (answers != found).sum() <= len(x_test) / ONE_IN
        accuracies.append((found == y_test).mean())
        quantized.fit(x[:20_000], y[:20_000], batch_size=128, verbose=0)
    _, float_accuracy = trained.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    assert accuracies[0] > float_accuracy - 0.01
    assert accuracies[1] > float_accuracy - 0.003


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the files of all backends are the same")
@pytest.mark.parametrize(("target", "run"), [("onnxruntime", in_onnxruntime), ("openvino", in_openvino)])
@pytest.mark.parametrize("name", ["vowels", "silero"])
def test_recurrent_networks_on_real_sequences(name, target, run, tmp_path, monkeypatch):
    """Half a point of accuracy, or half a hundredth of the area under the ROC curve, is the most that they lose."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "benchmarks")
    from accuracy import figures
    from trained import UnavailableError, trained_network

    try:
        network = trained_network(name)
    except UnavailableError as error:
        pytest.skip(str(error))
    network.evaluation, network.labels = network.evaluation[:370], network.labels[:370]
    expected = network.model.predict(network.evaluation, verbose=0)
    quantized = quantize_model(network.model, target=target, weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, network.calibration, verbose=0)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=network.evaluation[:4], verify_runtime=target)
    found = figures(run(tmp_path / "m.onnx", network.evaluation), expected, network)
    exact = figures(expected, expected, network)
    measure = "auc" if "auc" in exact else "accuracy"
    assert exact[measure] - found[measure] < 0.005
    assert found["snr"] > 10
