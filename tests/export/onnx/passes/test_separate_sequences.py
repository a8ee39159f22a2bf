import keras
import numpy as np
import pytest
import small_models
from keras import layers
from onnx_graphs import Graph
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.export.onnx.passes.openvino.separate_sequences import separate_sequences


def recurrent(g, op_type, gates, x, units=4, **attributes):
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    shape = (count, gates * units)
    return g.op(op_type, x, g.weight(*shape, 3), g.weight(*shape, units), hidden_size=units, **attributes)


def time_first(g):
    return g.op("Transpose", g.x, perm=[1, 0, 2])


def test_operators_that_read_equal_sequences_get_tensors_of_their_own(tmp_path):
    g = Graph(5, 3)
    outputs = [recurrent(g, "LSTM", 4, time_first(g)), recurrent(g, "GRU", 3, time_first(g), direction="reverse")]
    assert g.check(tmp_path, outputs, separate_sequences)["Pad"] == 1


def test_a_transpose_beside_an_operator_keeps_its_tensor(tmp_path):
    g = Graph(5, 3)
    x = g.op("Relu", g.x)
    outputs = [recurrent(g, "RNN", 1, x), g.op("Transpose", x, perm=[1, 0, 2])]
    assert g.check(tmp_path, outputs, separate_sequences)["Pad"] == 1


def test_operators_of_both_directions_and_of_other_sequences_stay(tmp_path):
    g = Graph(5, 3)
    x, y = g.op("Relu", g.x), g.op("Sigmoid", g.x)
    both = [recurrent(g, "LSTM", 4, x, direction="bidirectional") for _ in range(2)]
    assert g.check(tmp_path, [*both, recurrent(g, "LSTM", 4, y)], separate_sequences)["Pad"] == 0


BRANCHES = {
    "two": lambda x: [one(layers.LSTM)(x), one(layers.LSTM)(x)],
    "three and back": lambda x: [one(layers.LSTM)(x), one(layers.GRU)(x), one(layers.SimpleRNN, go_backwards=True)(x)],
    "one and both ways": lambda x: [one(layers.LSTM)(x), layers.Bidirectional(one(layers.LSTM))(x)],
    "one and a dense layer": lambda x: [one(layers.GRU)(x), layers.Dense(2)(x)],
}


def one(layer, **options):
    return layer(3, return_sequences=True, **options)


@pytest.mark.parametrize("target", [None, "openvino"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("branches", BRANCHES)
def test_layers_that_read_the_same_sequences_agree_in_openvino(tmp_path, branches, masked, target):
    pytest.importorskip("openvino")
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = one(layers.LSTM)(layers.Embedding(9, 4, mask_zero=masked)(tokens))
    model = small_models.randomize(keras.Model(tokens, BRANCHES[branches](x)))
    x = np.random.default_rng(0).integers(1, 9, (4, 6)).astype("int32")
    x[:2, 4:] = 0
    export_onnx(model, tmp_path / "m.onnx", target=target, verify_with=x, verify_runtime="openvino")


def test_integers_that_a_dense_layer_reads_too(tmp_path):
    # Without the Max before the Pad, OpenVINO does not load the file.
    inputs = keras.Input((5, 3))
    x = layers.LSTM(4, return_sequences=True)(inputs)
    model = small_models.randomize(keras.Model(inputs, [layers.LSTM(3)(x), layers.Dense(2)(x)]))
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    quantized = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), x, verbose=0)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=x, verify_runtime="openvino")
