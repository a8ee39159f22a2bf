"""Models for LiteRT, and what their files compute. It needs the TensorFlow backend and `ai-edge-litert`."""

import keras
import pytest
import small_models

from tensorflow_quantization import calibrate, quantize_model

if keras.backend.backend() != "tensorflow":
    pytest.skip("export_litert needs the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert, which runs .tflite files, is not installed")

from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.export.litert.file import operators


def quantized(model, x=None, **kwargs):
    """`model` for LiteRT, calibrated."""
    model = quantize_model(model, target="litert", **kwargs)
    return calibrate(model, small_models.data_for(model) if x is None else x, verbose=0)


def functional(*steps, shape=(8, 8, 3)):
    """A model of layers or functions, one after the other, with random weights."""
    inputs = x = keras.Input(shape, name="image")
    for step in steps:
        x = step(x)
    return small_models.randomize(keras.Model(inputs, x))


def kinds(path):
    """The types of the operators of a file; every one of them is computed in integers."""
    found = operators(path.read_bytes())
    assert not [kind for kind, _, floats in found if floats]
    return [kind for kind, _, _ in found]


def assert_agrees(model, path, x=None):
    """Export and compare each quantized tensor with Keras; the types of the operators."""
    x = small_models.data_for(model) if x is None else x
    export_litert(model, path, verify_with=x)
    return kinds(path)
