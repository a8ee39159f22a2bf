import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees, export, layer_model, op_counts
from processor import EXACT_WEIGHT_BITS
from small_models import randomize

from tensorflow_quantization import calibrate, check_onnx, quantize_model
from tensorflow_quantization.export import UnsupportedLayerError

CELLS = {
    "LSTM": lambda **k: layers.LSTM(3, **k),
    "GRU": lambda **k: layers.GRU(3, **k),
    "GRU, reset before": lambda **k: layers.GRU(3, reset_after=False, **k),
    "SimpleRNN": lambda **k: layers.SimpleRNN(3, **k),
    "LSTMCell": lambda **k: layers.RNN(layers.LSTMCell(3), **k),
    "GRUCell": lambda **k: layers.RNN(layers.GRUCell(3), **k),
    "SimpleRNNCell": lambda **k: layers.RNN(layers.SimpleRNNCell(3), **k),
    "stack": lambda **k: layers.RNN([layers.LSTMCell(4), layers.GRUCell(2), layers.SimpleRNNCell(3)], **k),
}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def flat_model(inputs, outputs):
    return randomize(keras.Model(inputs, keras.tree.flatten(outputs)))


@every_cell
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_recurrent(tmp_path, cell, sequences, state, backwards):
    inputs = keras.Input((5, 4))
    layer = cell(return_sequences=sequences, return_state=state, go_backwards=backwards)
    counts = op_counts(assert_agrees(flat_model(inputs, layer(inputs)), tmp_path / "m.onnx"))
    assert counts["LSTM"] + counts["GRU"] + counts["RNN"] in (1, 3)


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(
    "activation", ["relu", "sigmoid", "linear", "hard_sigmoid", "softsign", "softplus", "elu", "leaky_relu"]
)
def test_activations(tmp_path, kind, use_bias, activation):
    inner = {} if kind is layers.SimpleRNN else {"recurrent_activation": "hard_sigmoid"}
    layer = kind(3, activation=activation, use_bias=use_bias, **inner)
    assert_agrees(layer_model(layer, (4, 5)), tmp_path / "m.onnx")


def test_a_state_between_runs(tmp_path):
    inputs = keras.Input(batch_shape=(2, 4, 5))
    with pytest.raises(UnsupportedLayerError, match="stateful=True"):
        export(keras.Model(inputs, layers.GRU(3, stateful=True)(inputs)), tmp_path / "m.onnx")


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_all_steps_in_one_row(tmp_path, kind, steps):
    """The usual head of a network for time series; recurrent operators store the batch second."""
    inputs = keras.Input((steps, 5))
    x = layers.Flatten()(kind(3, return_sequences=True)(inputs))
    assert_agrees(randomize(keras.Model(inputs, layers.Dense(2)(x))), tmp_path / "m.onnx")


@pytest.mark.parametrize("options", [{"unroll": True}, {"dropout": 0.5, "recurrent_dropout": 0.5}], ids=str)
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_options_that_change_nothing(tmp_path, kind, options):
    assert_agrees(layer_model(kind(3, **options), (4, 5)), tmp_path / "m.onnx")


@every_cell
def test_the_state_of_one_begins_another(tmp_path, cell):
    inputs, others = keras.Input((5, 4)), keras.Input((6, 4))
    _, *states = cell(return_state=True)(inputs)
    state = states if len(states) > 1 else states[0]
    assert_agrees(randomize(keras.Model([inputs, others], cell()(others, initial_state=state))), tmp_path / "m.onnx")


def test_stacked_layers_are_transposed_once(tmp_path):
    inputs = keras.Input((None, 4))
    x = layers.GRU(4, return_sequences=True)(layers.LSTM(3, return_sequences=True)(inputs))
    model = randomize(keras.Model(inputs, layers.SimpleRNN(2)(x)))
    assert op_counts(assert_agrees(model, tmp_path / "m.onnx"))["Transpose"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN", "stack"])
def test_bidirectional(tmp_path, merge, sequences, state, cell):
    inputs = keras.Input((5, 4))
    layer = layers.Bidirectional(CELLS[cell](return_sequences=sequences, return_state=state), merge_mode=merge)
    if state and cell == "stack":
        pytest.skip("Keras does not know the number of its states")
    counts = op_counts(assert_agrees(flat_model(inputs, layer(inputs)), tmp_path / "m.onnx"))
    assert counts["LSTM"] + counts["GRU"] + counts["RNN"] == (6 if cell == "stack" else 1)


def test_bidirectional_with_different_layers(tmp_path):
    layer = layers.Bidirectional(
        layers.LSTM(3, return_sequences=True), backward_layer=layers.GRU(2, return_sequences=True, go_backwards=True)
    )
    assert_agrees(layer_model(layer, (5, 4)), tmp_path / "m.onnx")


def test_bidirectional_with_an_initial_state(tmp_path):
    inputs, *states = keras.Input((5, 4)), *(keras.Input((3,)) for _ in range(4))
    y = layers.Bidirectional(layers.LSTM(3))(inputs, initial_state=states)
    assert_agrees(randomize(keras.Model([inputs, *states], y)), tmp_path / "m.onnx")


MASKS = np.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 1]], "int32")


@every_cell
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_masked_steps_are_skipped(tmp_path, cell, sequences, backwards, zero):
    inputs, mask = keras.Input((5, 4)), keras.Input((5,), dtype="int32")
    options = {"return_sequences": sequences, "go_backwards": backwards, "zero_output_for_mask": zero}
    y = cell(return_state=True, **options)(inputs, mask=keras.ops.cast(mask, "bool"))
    x = np.random.default_rng(0).normal(size=(5, 5, 4)).astype("float32")
    assert_agrees(flat_model([inputs, mask], y), tmp_path / "m.onnx", [x, MASKS])


def test_a_sequence_without_any_step(tmp_path):
    inputs, mask = keras.Input((5, 4)), keras.Input((5,), dtype="int32")
    y = layers.LSTM(3, return_sequences=True, return_state=True)(inputs, mask=keras.ops.cast(mask, "bool"))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    arrays = [x, np.asarray([[0, 0, 0, 0, 0], [1, 0, 1, 0, 0]], "int32")]
    assert_agrees(flat_model([inputs, mask], y), tmp_path / "m.onnx", arrays)


@pytest.mark.parametrize("merge", ["concat", None])
@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional_with_masked_steps(tmp_path, merge, sequences):
    inputs, mask = keras.Input((5, 4)), keras.Input((5,), dtype="int32")
    layer = layers.Bidirectional(layers.GRU(3, return_sequences=sequences), merge_mode=merge)
    x = np.random.default_rng(0).normal(size=(5, 5, 4)).astype("float32")
    y = layer(inputs, mask=keras.ops.cast(mask, "bool"))
    assert_agrees(flat_model([inputs, mask], y), tmp_path / "m.onnx", [x, MASKS])


def openvino_deviation(path, arrays, expected, precision="f32"):
    """The largest difference from OpenVINO, relative to the largest value of each output."""
    openvino = pytest.importorskip("openvino")
    found = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": precision})(arrays)
    pairs = [(found[i], keras.ops.convert_to_numpy(y)) for i, y in enumerate(expected)]
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


@pytest.mark.parametrize("target", [None, "openvino"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU, reset before", "SimpleRNN", "stack"])
@pytest.mark.parametrize(
    "options", [{"return_sequences": True}, {"go_backwards": True}, {"zero_output_for_mask": True}]
)
def test_masked_steps_are_skipped_in_openvino(tmp_path, cell, options, target):
    inputs, mask = keras.Input((None, 4)), keras.Input((None,), dtype="int32")
    y = CELLS[cell](return_state=True, **options)(inputs, mask=keras.ops.cast(mask, "bool"))
    model = flat_model([inputs, mask], y)
    # The last sequence has no unmasked step.
    arrays = [np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32"), np.vstack([MASKS, MASKS[:1] * 0])]
    assert_agrees(model, tmp_path / "m.onnx", arrays, target=target)
    assert openvino_deviation(tmp_path / "m.onnx", arrays, model(arrays)) < 1e-4
    assert not check_onnx(tmp_path / "m.onnx", "openvino").errors


@pytest.mark.parametrize("backwards", [False, True])
def test_bfloat16_rounds_no_step_of_a_masked_sequence(tmp_path, backwards):
    # OpenVINO's default where the processor has AVX512-BF16 or AMX.
    inputs, mask = keras.Input((None, 4)), keras.Input((None,), dtype="int32")
    layer = layers.GRU(3, return_sequences=True, go_backwards=backwards)
    model = flat_model([inputs, mask], [layer(inputs, mask=keras.ops.cast(mask, "bool"))])
    arrays = [np.random.default_rng(0).normal(size=(5, 5, 4)).astype("float32"), MASKS]
    export(model, tmp_path / "m.onnx", target="openvino")
    assert openvino_deviation(tmp_path / "m.onnx", arrays, [model(arrays)], "bf16") < 0.05


@pytest.mark.parametrize("target", [None, "onnxruntime", "openvino"])
def test_a_sequence_without_any_step_keeps_the_initial_state(tmp_path, target):
    inputs, mask, *states = keras.Input((5, 4)), keras.Input((5,), dtype="int32"), keras.Input((3,)), keras.Input((3,))
    layer = layers.LSTM(3, return_state=True)
    y = layer(inputs, initial_state=states, mask=keras.ops.cast(mask, "bool"))
    if keras.backend.backend() == "jax":
        y = y[1:]  # there, the output before the first step is the initial state; elsewhere it is zero
    model = flat_model([inputs, mask, *states], y)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype("float32") for shape in ((2, 5, 4), (2, 3), (2, 3))]
    arrays.insert(1, np.asarray([[0, 0, 0, 0, 0], [1, 0, 1, 0, 0]], "int32"))
    assert_agrees(model, tmp_path / "m.onnx", arrays, target=target)
    if target != "onnxruntime":
        assert openvino_deviation(tmp_path / "m.onnx", arrays, model(arrays)) < 1e-4


@pytest.mark.parametrize("front", ["Embedding", "Masking"])
def test_a_quantized_model_with_masked_sequences_agrees_in_openvino(tmp_path, front):
    rng = np.random.default_rng(0)
    if front == "Embedding":
        inputs, x = keras.Input((5,), dtype="int32"), MASKS * 3
        y = layers.Embedding(7, 4, mask_zero=True)(inputs)
    else:
        inputs, x = keras.Input((5, 4)), rng.normal(size=(5, 5, 4)).astype("float32") * MASKS[:, :, None]
        y = layers.Masking()(inputs)
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(y)
    y = layers.Dense(2)(layers.GRU(8)(y))
    quantized = quantize_model(randomize(keras.Model(inputs, y)), target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, x, verbose=0)
    export(quantized, tmp_path / "m.onnx", verify_with=x, verify_runtime="openvino")


def test_activations_that_openvino_lacks_are_written_step_by_step(tmp_path):
    model = layer_model(layers.GRU(3, recurrent_activation="hard_sigmoid"), (5, 4))
    arrays = [np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")]
    assert op_counts(assert_agrees(model, tmp_path / "m.onnx", arrays, target="openvino"))["GRU"] == 0
    assert openvino_deviation(tmp_path / "m.onnx", arrays, [model(arrays[0])]) < 1e-4


def test_activations_that_openvino_lacks_over_an_unknown_number_of_steps(tmp_path):
    model = layer_model(layers.GRU(3, recurrent_activation="hard_sigmoid"), (None, 4))
    with pytest.raises(UnsupportedLayerError, match=r"OpenVINO's GRU has sigmoid, tanh, relu.*fixed number of steps"):
        export(model, tmp_path / "m.onnx", target="openvino")


def test_sequences_of_two_unknown_lengths(tmp_path):
    """Not one name for both lengths: ONNX Runtime would write both sequences into one buffer."""
    first, second = keras.Input((None, 5)), keras.Input((None, 5))
    _, *states = layers.LSTM(4, return_state=True)(first)
    y = layers.LSTM(4, return_sequences=True)(second, initial_state=states)
    model = randomize(keras.Model([first, second], layers.Dense(4)(y)))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(3, steps, 5)).astype("float32") for steps in (6, 8)]
    assert_agrees(model, tmp_path / "m.onnx", data)
