"""tests/test_end_to_end.py has a network whose numbers OpenVINO gets wrong without the pass."""

import keras
import numpy as np
import pytest
from keras import layers
from onnx import numpy_helper
from onnx_models import export
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, quantize_model

X = np.random.default_rng(0).normal(size=(3, 12, 4)).astype("float32")
LSTM = {"forward": layers.LSTM, "backward": lambda units, **o: layers.LSTM(units, go_backwards=True, **o)}
LSTM["both"] = lambda units, **options: layers.Bidirectional(layers.LSTM(units, **options))


def network(recurrent, batch=None):
    inputs = keras.Input((12, 4), batch_size=batch)
    x = layers.Conv2D(8, (1, 3), activation="relu")(layers.Reshape((1, 12, 4))(inputs))
    return keras.Model(inputs, recurrent(layers.Reshape((10, 8))(x)))


def states_of(proto):
    (node,) = (node for node in proto.graph.node if node.op_type in ("GRU", "LSTM", "RNN"))
    return [name for name in node.input[5:7] if name]


@pytest.mark.parametrize("target", [None, "openvino"])
@pytest.mark.parametrize(
    ("layer", "count"), [(layers.GRU, 1), (layers.SimpleRNN, 1), *((make, 2) for make in LSTM.values())]
)
def test_states_come_from_the_first_step(layer, count, target, tmp_path):
    bits = EXACT_WEIGHT_BITS if target else None
    model = calibrate(quantize_model(network(lambda x: layer(8)(x)), target=target, weight_bits=bits), X, verbose=0)
    runtime = "openvino" if target else "onnxruntime"
    proto = export(model, tmp_path / "m.onnx", verify_with=X, verify_runtime=runtime)
    producers = {name: node for node in proto.graph.node for name in node.output}
    names = states_of(proto)
    assert len(names) == count and len(set(names)) == 1
    node = producers[names[0]]
    assert node.op_type == "Add" and producers[producers[node.input[0]].input[0]].op_type == "Slice"
    zeros = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}[node.input[1]]
    assert not zeros.any() and zeros.shape[1:] == (1, 8)


def test_what_is_infinite_gives_zeros_too(tmp_path):
    import onnxruntime

    model = calibrate(quantize_model(network(layers.LSTM(8)), target="openvino"), X, verbose=0)
    proto = export(model, tmp_path / "m.onnx")
    (name, _) = states_of(proto)
    proto.graph.output[0].name = name
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: np.full_like(X, np.inf)})
    np.testing.assert_array_equal(found, np.zeros((1, 3, 8)))


@pytest.mark.parametrize("model", [lambda: network(layers.LSTM(8), batch=3), lambda: network(layers.LSTM(8))])
def test_float_files_and_fixed_batches_need_none(model, tmp_path):
    model = model()
    if model.inputs[0].shape[0] == 3:
        model = calibrate(quantize_model(model, target="openvino"), X, verbose=0)
    assert not states_of(export(model, tmp_path / "m.onnx", target="openvino"))


def test_given_states_stay(tmp_path):
    inputs, state = keras.Input((12, 4)), keras.Input((8,))
    model = keras.Model([inputs, state], layers.GRU(8)(layers.Conv1D(8, 3)(inputs), initial_state=state))
    data = [X, np.ones((3, 8), "float32")]
    quantized = calibrate(
        quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), iter([data]), verbose=0
    )
    proto = export(quantized, tmp_path / "m.onnx", verify_with=data, verify_runtime="openvino")
    (name,) = states_of(proto)
    assert {output: node.op_type for node in proto.graph.node for output in node.output}.get(name) != "Add"
