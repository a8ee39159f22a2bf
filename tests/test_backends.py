"""The core on JAX and PyTorch, in processes where TensorFlow cannot be imported; the same file on each backend."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent

#: Python runs this at its start: it finds no TensorFlow, as if that were not installed.
WITHOUT_TENSORFLOW = """
import importlib.machinery
import sys


class WithoutTensorFlow(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tf_keras", "tf2onnx"):
            return None
        return super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = WithoutTensorFlow
"""

SCRIPT = """
import importlib.util
import sys

try:
    import tensorflow
except ImportError:
    pass
else:
    raise AssertionError("TensorFlow can be imported")

import keras
import numpy as np
import small_models
from keras import ops

from tensorflow_quantization import calibrate, describe, export_onnx, quantize_model
from tensorflow_quantization.custom_qdq_cases import ResNetV1QDQCase
from tensorflow_quantization.model.keras_internals import sublayers

backend, folder = sys.argv[1:]
assert keras.backend.backend() == backend
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
x, y = small_models.images()

for build, modes in (
    (small_models.residual, ["ema", "learned"]),
    (small_models.nested, ["last"]),
    (small_models.sequential, ["ema"]),
    (small_models.subclassed, ["learned"]),
):
    for ranges in modes:
        model = build()
        weights = small_models.values(model)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
        q_model = quantize_model(model, custom_qdq_cases=[ResNetV1QDQCase()], ranges=ranges)
        history = q_model.fit(x, y, batch_size=8, epochs=4, verbose=0).history
        assert history["loss"][-1] < history["loss"][0], (build, ranges, history)
        small_models.assert_same_arrays(small_models.values(model), weights)
        assert all(
            quantizer.seen for layer in sublayers(q_model)
            for quantizer in getattr(layer, "activation_quantizers", [])
        )

        calibrate(q_model, x, method="mse", verbose=0)
        q_model.save(f"{folder}/model.keras")
        loaded = keras.models.load_model(f"{folder}/model.keras")
        expected = q_model.predict(x, verbose=0)
        np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
        loaded.fit(x, y, verbose=0)
        assert "layers quantized" in str(describe(q_model))

        # One quantum at each quantizer is the most that the runtime may differ by.
        export_onnx(q_model, f"{folder}/model.onnx")
        if importlib.util.find_spec("onnxruntime"):
            import onnxruntime

            session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
            (found,) = session.run(None, {session.get_inputs()[0].name: x})
            assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max(), (build, ranges)

assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_core_without_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
    (tmp_path / "core.py").write_text(SCRIPT)
    path = os.pathsep.join([str(site), str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, tmp_path / "core.py", backend, tmp_path],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_importing_the_package_imports_no_tensorflow(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    code = "import sys, tensorflow_quantization; sys.exit('tensorflow' in sys.modules)"
    path = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend})
    assert run.returncode == 0


#: Prints a hash of the file of each model, by its name; weights do not depend on the backend's random numbers.
HASHES = """
import hashlib
import json
import warnings

import keras
import onnx
import small_models
from keras import applications, layers

from tensorflow_quantization import export_onnx, quantize_model

warnings.filterwarnings("ignore", message=".*never saw data")  # ranges that a backend computes differ by its rounding


def transformer():
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=True)(inputs)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True)])
    return keras.Model(inputs, layers.Dense(8, activation="gelu")(layers.RMSNormalization()(x)))


def recurrent():
    inputs = keras.Input((None, 6))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.GRU(3)(x)))


builders = {
    **{name: small_models.BUILDERS[name] for name in ("residual", "nested", "siamese", "operations", "subclassed")},
    "MobileNetV3Small": lambda: applications.MobileNetV3Small((32, 32, 3), alpha=0.5, weights=None, classes=3),
    "transformer": transformer,
    "recurrent": recurrent,
}
hashes = {}
for name, build in builders.items():
    keras.utils.clear_session()
    model = small_models.randomize(build())
    for kind, exported in {"float": model, "quantized": quantize_model(model)}.items():
        export_onnx(exported, "model.onnx")
        proto = onnx.load("model.onnx")
        del proto.metadata_props[:]
        hashes[f"{name}, {kind}"] = hashlib.sha256(proto.SerializeToString()).hexdigest()
print(json.dumps(hashes))
"""


def output_of(code, backend, folder):
    """What a process prints that runs `code` in `folder` on a backend."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stdout


@pytest.mark.slow
def test_the_same_file_on_each_backend(tmp_path):
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    if len(backends) < 2:
        pytest.skip(f"Only {backends[0]} is installed")
    first, *others = (json.loads(output_of(HASHES, name, tmp_path).splitlines()[-1]) for name in backends)
    for other in others:
        assert other == first


#: Writes calibrated models to `.keras` files in this folder.
SAVE = """
import keras
import small_models
from keras import layers

from tensorflow_quantization import calibrate, quantize_model


def wide():
    # Many channels: a rounding error of a backend shows in some of them.
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(64, 3, activation="relu")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(layers.SeparableConv2D(64, 3)(x)))
    return keras.Model(inputs, layers.Dense(64)(layers.Flatten()(x)))


builders = {"wide": wide, "residual": small_models.residual}
for name, build in builders.items():
    for target in (None, "tensorrt", "onnxruntime", "openvino"):
        keras.utils.clear_session()
        model = quantize_model(small_models.randomize(build()), target=target)
        calibrate(model, small_models.data_for(model, 4), verbose=0).save(f"{name}.{target}.keras")
"""

#: Exports these files, and prints a hash of each exported file, by its name.
EXPORT = """
import hashlib
import json
import pathlib

import keras

from tensorflow_quantization import export_onnx

hashes = {}
for path in sorted(pathlib.Path().glob("*.keras")):
    keras.utils.clear_session()
    export_onnx(keras.models.load_model(path), "model.onnx")
    hashes[path.name] = hashlib.sha256(pathlib.Path("model.onnx").read_bytes()).hexdigest()
print(json.dumps(hashes))
"""


@pytest.mark.slow
def test_a_saved_quantized_model_is_the_same_file_on_each_backend(tmp_path):
    # The biases are rounded to steps of the calibrated scales: all of the file is computed in NumPy.
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    if len(backends) < 2:
        pytest.skip(f"Only {backends[0]} is installed")
    output_of(SAVE, backends[0], tmp_path)
    first, *others = (json.loads(output_of(EXPORT, name, tmp_path).splitlines()[-1]) for name in backends)
    assert len(first) == 8
    for other in others:
        assert other == first
