import keras
import numpy as np
from keras import layers

from tensorflow_quantization import export_onnx
from tensorflow_quantization.export.verification.latency import median_latencies


def dense(units):
    inputs = keras.Input((units,), name="x")
    return keras.Model(inputs, layers.Dense(units, name="y")(inputs))


def test_larger_file_takes_longer(tmp_path):
    paths = {units: export_onnx(dense(units), tmp_path / f"{units}.onnx") for units in (2, 1024)}
    inputs = [(path, {"x": np.ones((64, units), "float32")}) for units, path in paths.items()]
    small, large = median_latencies("onnxruntime", inputs)
    assert 0 < small < large
