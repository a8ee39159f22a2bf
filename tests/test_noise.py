"""No warning of other libraries reaches a user who shows all warnings."""

import os
import subprocess
import sys
import warnings

import keras
import pytest

from tensorflow_quantization import calibrate, check_onnx, describe, export_onnx, quantize_model


def test_the_whole_way_issues_no_deprecation_warning(cnn, images, tmp_path):
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        quantized = quantize_model(cnn, target="onnxruntime")
    calibrate(quantized, images[0], verbose=0)  # with PyTorch, Keras' own predict issues some
    with warnings.catch_warnings(record=True) as later:
        warnings.simplefilter("always")
        export_onnx(quantized, path)
        str(describe(quantized))
        str(check_onnx(path, "onnxruntime"))
    assert [str(w.message) for w in [*issued, *later] if issubclass(w.category, DeprecationWarning)] == []


EXPORT = """
import keras, numpy as np
from tensorflow_quantization import calibrate, export_litert, quantize_model
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
x = np.ones((2, 4), "float32")
quantized = calibrate(quantize_model(model, target="litert"), x, verbose=0)
print("exporting", file=__import__("sys").stderr, flush=True)
export_litert(quantized, "m.tflite", verify_with=x)
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT needs the TensorFlow backend")
def test_a_verified_export_to_litert_writes_no_notes(tmp_path):
    pytest.importorskip("ai_edge_litert")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-c", EXPORT]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (tmp_path / "m.tflite").exists()
    assert done.stderr.partition("exporting\n")[2] == ""
