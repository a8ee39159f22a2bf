import keras
import numpy as np
import pytest
from keras import layers
from litert_files import quantized
from recurrent_layers import CONVOLUTIONAL, LAYERS
from small_models import randomize

from tensorflow_quantization import QuantizationSpec
from tensorflow_quantization.export import ExportError
from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.export.litert.file import operators, unpacked
from tensorflow_quantization.export.verification.litert import run_file
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.weights import merged_array

ARGUMENTS = {
    "alone": {},
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "unrolled": {"unroll": True, "return_sequences": True},
}


def _sequences(steps=5):
    data = np.random.default_rng(0).normal(size=(8, steps, 3)).astype("float32")
    data[::2, 1:3] = 0  # masked
    return data


def _model(layer, shape=(5, 3), masked=False):
    inputs = x = keras.Input(shape)
    x = layer(layers.Masking()(x) if masked else x)
    x = layers.Concatenate()(x) if isinstance(x, list | tuple) else x
    return randomize(keras.Model(inputs, layers.Dense(3)(x)))


def _assert_computes_as_keras(path, model, data):
    """The file verifies, and its states have no scale: else the outputs would be nearer to a step than to Keras."""
    export_litert(model, path, verify_with=data)
    found = run_file(path.read_bytes(), LayerGraph.trace(model), [data])["output_0"]
    np.testing.assert_allclose(found, model.predict(data, verbose=0), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("name", "arguments"),
    # Keras wants the first layer of Bidirectional to run forwards.
    [(name, a) for name in LAYERS for a in ARGUMENTS if (name, a) != ("Bidirectional", "backwards")],
)
def test_recurrent_layers(tmp_path, name, arguments, masked):
    model = quantized(_model(LAYERS[name](**ARGUMENTS[arguments]), masked=masked), _sequences())
    _assert_computes_as_keras(tmp_path / "m.tflite", model, _sequences())


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", ["LSTM", "SimpleRNN"])
def test_states_as_outputs(tmp_path, name):
    model = quantized(_model(LAYERS[name](return_state=True)), _sequences())
    _assert_computes_as_keras(tmp_path / "m.tflite", model, _sequences())


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.TimeDistributed(layers.LSTM(4)), (2, 5, 3)),
        (keras.Sequential([layers.ConvLSTM1D(4, 3), layers.Flatten()]), (3, 8, 2)),
    ],
    ids=["TimeDistributed", "ConvLSTM1D"],
)
def test_what_computes_recurrent_layers(tmp_path, layer, shape):
    data = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    model = quantized(_model(layer, shape), data)
    export_litert(model, tmp_path / "m.tflite", verify_with=data)


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_the_model_is_as_before(tmp_path):
    model = quantized(_model(layers.Bidirectional(layers.SimpleRNN(4))), _sequences())
    recurrent = [layer for layer in model._flatten_layers() if isinstance(layer, layers.RNN)]
    before = [(set(vars(layer)), set(vars(layer.cell))) for layer in recurrent]
    export_litert(model, tmp_path / "m.tflite")
    assert [(set(vars(layer)), set(vars(layer.cell))) for layer in recurrent] == before
    assert [layer.unroll for layer in recurrent] == [False] * 2


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("layer", [layers.LSTM(4, name="r"), layers.Bidirectional(layers.GRU(4), name="r")])
def test_the_number_of_steps_has_to_be_known(tmp_path, layer):
    model = quantized(_model(layer, (None, 3)), _sequences())
    with pytest.raises(ExportError, match=r"'quant_r' reads sequences with an unknown number of steps"):
        export_litert(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
    x = keras.Input((5, 3))  # as the message says
    _assert_computes_as_keras(tmp_path / "m.tflite", keras.Model(x, model(x)), _sequences())


def test_states_between_runs_are_refused(tmp_path):
    inputs = keras.Input(batch_shape=(8, 5, 3))
    model = quantized(
        keras.Model(inputs, layers.Dense(3)(layers.LSTM(4, stateful=True, name="r")(inputs))), _sequences()
    )
    with pytest.raises(ExportError, match="'quant_r' has stateful=True"):
        export_litert(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN", "Bidirectional"])
def test_kernels_are_integers_in_the_file(tmp_path, name):
    x, data = keras.Input((5, 64)), np.random.default_rng(0).normal(size=(4, 5, 64)).astype("float32")
    layer = {"Bidirectional": layers.Bidirectional(layers.LSTM(64))}.get(name) or getattr(layers, name)(64)
    model = randomize(keras.Model(x, layers.Dense(3)(layer(x))))
    spec = QuantizationSpec()
    spec.add(layer.name, quantize_weight=False, quantize_input=False)
    in_float, in_integers = (
        export_litert(quantized(model, data, quantization_spec=s), tmp_path / "m.tflite", verify_with=data)
        .stat()
        .st_size
        for s in (spec, None)
    )
    weights = sum(w.shape[0] * w.shape[1] for w in layer.weights if len(w.shape) > 1)
    assert in_float - in_integers > 2.5 * weights  # of three bytes less for each; scales and operators take some


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_the_input_of_all_steps_is_multiplied_at_once(tmp_path, name):
    model = quantized(_model(LAYERS[name](return_sequences=True), shape=(7, 3)), _sequences(7))
    kinds = [kind for kind, _, _ in operators(export_litert(model, tmp_path / "m.tflite").read_bytes())]
    assert kinds.count("FULLY_CONNECTED") <= 1 + 7 + 1  # of the input, of the states, and the last layer


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("rank", CONVOLUTIONAL)
@pytest.mark.parametrize("options", [{"padding": "same"}, {"strides": 2, "return_sequences": True}], ids=str)
def test_kernels_of_convolutions_are_integers_in_the_file(tmp_path, rank, options):
    data = np.random.default_rng(0).normal(size=(2, 3, *[5] * rank, 16)).astype("float32")
    x, layer = keras.Input(data.shape[1:]), CONVOLUTIONAL[rank](32, 3, **options)
    model = randomize(
        keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Reshape((-1, 32))(layer(x)))))
    )
    model = quantized(model, data)
    export_litert(model, tmp_path / "m.tflite", verify_with=data)
    buffers = unpacked((tmp_path / "m.tflite").read_bytes()).buffers
    held = {bytes(buffer.data) for buffer in buffers if buffer.data is not None}
    for name, quantizer in model.get_layer(f"quant_{layer.name}").weight_quantizers.items():
        integers = quantizer.integers(merged_array(layer, name))
        assert {integers.tobytes(), np.moveaxis(integers, -1, 0).tobytes()} & held


@keras.saving.register_keras_serializable("test_recurrence")
class Cell(layers.Layer):
    """A cell of the user's own whose output is a tanh."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units))
        self.recurrent = self.add_weight(shape=(self.units, self.units))

    def call(self, inputs, states):
        y = keras.ops.tanh(keras.ops.matmul(inputs, self.kernel) + keras.ops.matmul(states[0], self.recurrent))
        return y, [y]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("cell", [lambda: Cell(4), lambda: layers.LSTMCell(4), lambda: [Cell(4), layers.GRUCell(3)]])
def test_both_directions_of_cells(tmp_path, cell):
    """The kernels of both directions have the same path."""
    model = quantized(_model(layers.Bidirectional(layers.RNN(cell(), return_sequences=True))), _sequences())
    _assert_computes_as_keras(tmp_path / "m.tflite", model, _sequences())


def test_the_range_of_the_outputs_is_calibrated():
    """The activation of a recurrent layer is not the last step in computing its outputs."""
    model = quantized(_model(layers.LSTM(4, name="r")), 0.1 * _sequences())
    assert model.get_layer("quant_r").output_quantizer.scheme.fixed is None


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_states_of_another_layer(tmp_path):
    x = keras.Input((5, 3))
    y, *states = layers.Bidirectional(layers.LSTM(4, return_sequences=True, return_state=True))(x)
    y = layers.Bidirectional(layers.LSTM(4))(y, initial_state=states)
    model = quantized(randomize(keras.Model(x, layers.Dense(3)(y))), _sequences())
    _assert_computes_as_keras(tmp_path / "m.tflite", model, _sequences())


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_states_that_are_given(tmp_path):
    x = keras.Input((5, 3))
    states = [layers.Dense(4)(x[:, step]) for step in range(2)]
    model = quantized(randomize(keras.Model(x, layers.Dense(3)(layers.LSTM(4)(x, initial_state=states)))), _sequences())
    _assert_computes_as_keras(tmp_path / "m.tflite", model, _sequences())


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_a_model_of_recurrent_layers_alone(tmp_path):
    inputs = keras.Input((5, 3))
    model = quantized(randomize(keras.Model(inputs, layers.LSTM(4)(inputs))), _sequences())
    _assert_computes_as_keras(tmp_path / "m.tflite", model, _sequences())
