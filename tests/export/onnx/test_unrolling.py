import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops
from onnx_models import assert_agrees, export, layer_model, op_counts, run
from small_models import randomize

from tensorflow_quantization import calibrate, check_onnx, quantize_model
from tensorflow_quantization.export import UnsupportedLayerError, export_onnx
from tensorflow_quantization.export.onnx import fallback
from tensorflow_quantization.model.keras_internals import nodes_of, sublayers


@keras.saving.register_keras_serializable("test_unrolling")
class Cell(layers.Layer):
    """A sublayer, a weight and operations; its output is not its state, and its two states are of different sizes."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, 2]
        self.output_size = units
        self.update = layers.Dense(units, activation="gelu")

    def build(self, input_shape):
        self.update.build((input_shape[0], input_shape[-1] + self.units))
        self.gain = self.add_weight(name="gain", shape=(self.units, 2))

    def call(self, inputs, states, training=False):
        memory, total = states
        memory = memory + self.update(ops.concatenate([inputs, memory], axis=-1)) * (2.0 if training else 1.0)
        total = total + memory @ self.gain
        return ops.tanh(memory) - ops.mean(total, axis=-1, keepdims=True), [memory, total]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("test_unrolling")
class Started(Cell):
    """Begins with a state of its own."""

    def get_initial_state(self, batch_size=None):
        return [ops.ones((batch_size, self.units)), ops.full((batch_size, 2), 0.5)]


FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
LAYERS = {
    "LSTM": ((5, 4), lambda **k: layers.LSTM(3, activation="gelu", **k)),
    "GRU": ((5, 4), lambda **k: layers.GRU(3, activation="swish", **k)),
    "SimpleRNN": ((5, 4), lambda **k: layers.SimpleRNN(3, activation="selu", **k)),
    "own cell": ((5, 4), lambda **k: layers.RNN(Cell(), **k)),
    "own start": ((5, 4), lambda **k: layers.RNN(Started(), **k)),
    "stack": ((5, 4), lambda **k: layers.RNN([Cell(4), layers.LSTMCell(2), layers.GRUCell(3)], **k)),
    "ConvLSTM1D": ((5, 6, 2), lambda **k: layers.ConvLSTM1D(3, 3, **k)),
    "ConvLSTM2D": ((5, 6, 4, 2), lambda **k: layers.ConvLSTM2D(3, 3, padding="same", **k)),
    "ConvLSTM3D": ((5, 4, 3, 4, 1), lambda **k: layers.ConvLSTM3D(2, 2, **k)),
}
every_layer = pytest.mark.parametrize(("shape", "layer"), LAYERS.values(), ids=LAYERS)


def flat_model(inputs, outputs):
    return randomize(keras.Model(inputs, keras.tree.flatten(outputs)))


@pytest.mark.slow
@every_layer
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_it_agrees(tmp_path, shape, layer, sequences, backwards):
    inputs = keras.Input(shape)
    y = layer(return_sequences=sequences, return_state=True, go_backwards=backwards)(inputs)
    counts = op_counts(assert_agrees(flat_model(inputs, y), tmp_path / "m.onnx"))
    assert not {"LSTM", "GRU", "RNN", "Loop", "Scan"} & set(counts)


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2},
        {"dilation_rate": 2, "padding": "same"},
        {"use_bias": False, "activation": "relu", "recurrent_activation": "hard_sigmoid"},
        {"dropout": 0.5, "recurrent_dropout": 0.5},
        {"data_format": "channels_first", "return_sequences": True},
    ],
    ids=str,
)
def test_options_of_convolutions(tmp_path, options):
    if options.get("data_format") == "channels_first" and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow does not compute it on a CPU")
    assert_agrees(layer_model(layers.ConvLSTM2D(3, 3, **options), (3, 6, 6, 6)), tmp_path / "m.onnx")


@pytest.mark.parametrize("activation", ["gelu", "swish", "mish", "hard_swish", "selu", "log_sigmoid"])
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN, layers.ConvLSTM1D])
def test_activations(tmp_path, monkeypatch, activation, kind):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    size = (2, 3) if kind is layers.ConvLSTM1D else (2,)
    layer = kind(*size, activation=activation)
    function = layer.cell.activation
    assert_agrees(layer_model(layer, (3, 5, 4) if kind is layers.ConvLSTM1D else (3, 4)), tmp_path / "m.onnx")
    assert layer.cell.activation is function


def test_activations_in_a_stack(tmp_path, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    layer = layers.RNN([layers.LSTMCell(3, activation="mish"), layers.GRUCell(2, recurrent_activation="hard_swish")])
    assert_agrees(layer_model(layer, (3, 4)), tmp_path / "m.onnx")


def test_dropout_does_nothing(tmp_path):
    layer = layers.LSTM(3, activation="gelu", dropout=0.5, recurrent_dropout=0.5)
    assert_agrees(layer_model(layer, (5, 4)), tmp_path / "m.onnx")


@every_layer
def test_the_state_of_one_begins_another(tmp_path, shape, layer):
    inputs, others = keras.Input(shape), keras.Input((3, *shape[1:]))
    _, *states = layer(return_state=True)(inputs)
    state = states if len(states) > 1 else states[0]
    assert_agrees(flat_model([inputs, others], layer()(others, initial_state=state)), tmp_path / "m.onnx")


@pytest.mark.slow
@every_layer
# Each pair of options in each combination.
@pytest.mark.parametrize(
    ("sequences", "backwards", "zero"),
    [(False, False, False), (True, True, False), (True, False, True), (False, True, True)],
)
def test_masked_steps_change_nothing(tmp_path, shape, layer, sequences, backwards, zero):
    if keras.backend.backend() == "jax" and (len(shape) > 2 or isinstance(layer().cell, Cell)):
        pytest.skip("Keras on JAX takes the first state for the output, and masks along the wrong axes")
    inputs, mask = keras.Input(shape), keras.Input((5,), dtype="int32")
    options = {"return_sequences": sequences, "go_backwards": backwards, "return_state": True}
    options |= {"zero_output_for_mask": zero}
    y = layer(**options)(inputs, mask=ops.cast(mask, "bool"))
    steps = np.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]], "int32")
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    assert_agrees(flat_model([inputs, mask], y), tmp_path / "m.onnx", [x, steps])


def test_a_mask_that_keras_hands_on(tmp_path):
    inputs = keras.Input((5, 4))
    x = layers.RNN(Cell(), return_sequences=True)(layers.Masking()(inputs))
    model = randomize(keras.Model(inputs, layers.GRU(2, activation="gelu")(x)))
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    x[0, 3:] = x[1, :2] = 0
    assert_agrees(model, tmp_path / "m.onnx", [x])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("merge", "sequences"),
    [("concat", True), ("sum", False), ("mul", True), ("ave", False), (None, True), (None, False)],
)
@pytest.mark.parametrize("name", ["LSTM", "own cell", "ConvLSTM2D"])
def test_bidirectional(tmp_path, merge, sequences, name):
    shape, layer = LAYERS[name]
    inputs = keras.Input(shape)
    y = layers.Bidirectional(layer(return_sequences=sequences, return_state=True), merge_mode=merge)(inputs)
    assert_agrees(flat_model(inputs, y), tmp_path / "m.onnx")


@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional_with_masked_steps(tmp_path, sequences):
    inputs, mask = keras.Input((4, 5)), keras.Input((4,), dtype="int32")
    layer = layers.Bidirectional(layers.LSTM(3, activation="gelu", return_sequences=sequences))
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    steps = np.asarray([[1, 1, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1]], "int32")
    model = flat_model([inputs, mask], layer(inputs, mask=ops.cast(mask, "bool")))
    assert_agrees(model, tmp_path / "m.onnx", [x, steps])


def test_a_constant_to_begin_with(tmp_path):
    inputs = keras.Input(batch_shape=(2, 4, 5))
    y = layers.LSTM(3, activation="gelu")(inputs, initial_state=[ops.ones((2, 3)), ops.zeros((2, 3))])
    assert_agrees(flat_model(inputs, y), tmp_path / "m.onnx")


def test_one_direction_step_by_step_the_other_by_an_operator(tmp_path):
    layer = layers.Bidirectional(
        layers.LSTM(3, activation="gelu"), backward_layer=layers.GRU(2, go_backwards=True), merge_mode="concat"
    )
    assert op_counts(assert_agrees(layer_model(layer, (5, 4)), tmp_path / "m.onnx"))["GRU"] == 1


@every_layer
def test_weights_are_stored_once(tmp_path, shape, layer):
    stored = []
    for steps in (2, 4):
        proto = export(layer_model(layer(), (steps, *shape[1:])), tmp_path / "m.onnx")
        # Biases, which are small, become those of each convolution.
        stored.append(sum(np.prod(w.dims) for w in proto.graph.initializer if len(w.dims) > 1))
    assert stored[0] == stored[1]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["LSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"])
def test_quantized_kernels_are_cast_and_scaled_at_load(tmp_path, target, name):
    shape, make = LAYERS[name]
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    inputs = keras.Input(shape)
    model = randomize(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(make(name="steps")(inputs)))))
    quantized = calibrate(quantize_model(model, target=target), x, verbose=0)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=x, verify_runtime=target)
    proto = onnx.load(tmp_path / "m.onnx")
    stored = [w for w in proto.graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) > 1]
    assert len([w for w in stored if "kernel" in w.name and "steps" in w.name]) == 2
    assert not [n.name for n in proto.graph.node if n.op_type == "DequantizeLinear" and "steps/cell" in n.name]
    assert {finding.severity for finding in check_onnx(tmp_path / "m.onnx", target=target)} <= {"info"}


def test_the_batch_may_have_any_size(tmp_path):
    model = layer_model(layers.ConvLSTM2D(2, 3), (3, 5, 5, 1))
    for count in (1, 3):
        x = np.random.default_rng(0).normal(size=(count, 3, 5, 5, 1)).astype("float32")
        assert_agrees(model, tmp_path / "m.onnx", [x])


def test_images_are_transposed_once(tmp_path):
    inputs = keras.Input((3, 6, 6, 2))
    x = layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True)(inputs)
    model = randomize(keras.Model(inputs, layers.ConvLSTM2D(2, 3)(x)))
    proto = assert_agrees(model, tmp_path / "m.onnx")
    images = [n for n in proto.graph.node if n.op_type == "Transpose" and not n.input[0].endswith("Expand")]
    assert len(images) <= 2 + 4  # at the input, at the output, and for what the states begin with


def test_the_model_stays_as_it_was(tmp_path):
    model = layer_model(layers.RNN(Cell()), (5, 4))
    nodes = [len(nodes_of(x)) for x in [model, *sublayers(model)]]
    export_onnx(model, tmp_path / "m.onnx")
    first = (tmp_path / "m.onnx").read_bytes()
    assert [len(nodes_of(x)) for x in [model, *sublayers(model)]] == nodes
    export_onnx(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == first


@pytest.mark.parametrize("layer", [layers.LSTMCell(3), layers.GRUCell(3), layers.SimpleRNNCell(3)])
def test_one_step_of_a_recurrence(tmp_path, layer):
    inputs, *states = keras.Input((4,)), *(keras.Input((3,)) for _ in range(len(np.atleast_1d(layer.state_size))))
    y = layer(inputs, states)
    assert_agrees(flat_model([inputs, *states], y), tmp_path / "m.onnx")


def test_one_step_of_a_stack(tmp_path):
    inputs, *states = keras.Input((4,)), *(keras.Input((3,)) for _ in range(3))
    stack = layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(3)])
    y = stack(inputs, [states[:2], states[2:]])
    assert_agrees(flat_model([inputs, *states], y), tmp_path / "m.onnx")


def test_what_steps_there_are_must_be_known(tmp_path, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    for layer, why in ((layers.RNN(Cell()), "cell of class Cell"), (layers.GRU(3, activation="gelu"), "gelu")):
        with pytest.raises(UnsupportedLayerError, match=f"{why}.*build the model for a fixed number of steps"):
            export(layer_model(layer, (None, 4)), tmp_path / "m.onnx")


def test_a_cell_that_keras_cannot_trace_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")

    class Branching(layers.Layer):
        state_size = 4

        def call(self, inputs, states):
            return (inputs if inputs[0, 0] > 0 else states[0]), states

    class Opaque(layers.Layer):
        state_size = 4

        def __init__(self):
            super().__init__()
            self.twice = layers.Lambda(lambda x: x * 2)

        def call(self, inputs, states):
            return self.twice(inputs), states

    for cell, why in ((Branching, "cell of class Branching, which Keras cannot trace"), (Opaque, "which uses Lambda")):
        inputs = keras.Input((3, 4))
        layer = layers.RNN(cell())
        layer.compute_output_spec = lambda *args, **kwargs: keras.KerasTensor((None, 4))
        with pytest.raises(UnsupportedLayerError, match=why):
            export(keras.Model(inputs, layer(inputs)), tmp_path / "m.onnx")


def test_openvino_runs_it(tmp_path):
    openvino = pytest.importorskip("openvino")
    model = layer_model(layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True), (3, 6, 6, 2))
    export(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 6, 2)).astype("float32")
    (actual,) = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", FLOAT32)([x]).values()
    np.testing.assert_allclose(actual, run(tmp_path / "m.onnx", [x])[0], atol=1e-5)
