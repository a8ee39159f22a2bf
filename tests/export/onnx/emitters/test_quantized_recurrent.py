"""Files of recurrent layers with quantized weights: small, and equal to Keras in the runtime."""

import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from recurrent_layers import LAYERS
from small_models import randomize

from tensorflow_quantization import calibrate, export_onnx, quantize_model

SEQUENCES = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
MASKED = SEQUENCES.copy()
MASKED[1, 3:] = MASKED[2, :2] = MASKED[3] = 0  # the end, the start, and all steps

CELLS = {
    **LAYERS,
    "step by step": lambda **k: layers.LSTM(4, activation="gelu", **k),
    "parts of kernels": lambda **k: layers.LSTM(4, activation="gelu", implementation=1, **k),
}


def exported(tmp_path, model, target, x=SEQUENCES, bits=None, **kwargs):
    """The file of a quantized model, which its runtime verified on `x`."""
    quantized = quantize_model(model, target=target, weight_bits=bits or EXACT_WEIGHT_BITS)
    calibrate(quantized, x, verbose=0)
    return export(quantized, tmp_path / "m.onnx", verify_with=x, verify_runtime=target, **kwargs)


def integers_in(proto):
    """The number of elements of int8 and int4 constants with several axes."""
    return sum(int(np.prod(i.dims)) for i in proto.graph.initializer if len(i.dims) > 1 and i.data_type in (3, 22))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_quantized_layer_before_an_integer_kernel(tmp_path, cell, target):
    inputs = keras.Input((5, 3))
    model = randomize(keras.Model(inputs, layers.Dense(2)(cell()(inputs))))
    proto = exported(tmp_path, model, target)
    if cell is not CELLS["parts of kernels"]:
        kernels = [w for w in model.weights if "kernel" in w.name]
        assert integers_in(proto) == sum(int(np.prod(w.shape)) for w in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "Bidirectional", "stack"])
def test_masks_sequences_and_states(tmp_path, cell, target):
    inputs = keras.Input((5, 3))
    x = layers.Masking()(inputs)
    sequences, *states = CELLS[cell](return_sequences=True, return_state=True)(x)
    y = layers.Bidirectional(layers.GRU(2))(sequences)
    model = randomize(keras.Model(inputs, layers.Concatenate()([y, *keras.tree.flatten(states)])))
    exported(tmp_path, model, target, MASKED)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_layers_that_read_the_same_sequences(tmp_path, target):
    inputs = keras.Input((5, 3))
    y = [layers.LSTM(4)(inputs), layers.GRU(3)(inputs), layers.Bidirectional(layers.LSTM(2))(inputs)]
    proto = exported(tmp_path, randomize(keras.Model(inputs, layers.Concatenate()(y))), target)
    assert op_counts(proto)["LSTM"] == 2


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("options", [{"bits": 4}, {"precision": "float16"}], ids=str)
def test_four_bits_and_half_precision(tmp_path, options, target):
    model = randomize(keras.Sequential([keras.Input((5, 3)), layers.Bidirectional(layers.LSTM(16))]))
    if "precision" in options:
        quantized = quantize_model(model, target=target, weight_bits=EXACT_WEIGHT_BITS)
        assert op_counts(export(quantized, tmp_path / "m.onnx", **options))["LSTM"] == 1
    else:
        exported(tmp_path, model, target, **options)


def test_weights_are_a_quarter_of_the_float_file(tmp_path):
    model = keras.Sequential([keras.Input((5, 64)), layers.LSTM(64), layers.Dense(2)])
    export_onnx(model, tmp_path / "float.onnx")
    exported(tmp_path, model, "onnxruntime", np.zeros((2, 5, 64), "float32"))
    float_size, size = ((tmp_path / name).stat().st_size for name in ("float.onnx", "m.onnx"))
    assert size < 0.3 * float_size
