"""What is known of recurrent cells: their products, and ConvLSTM in two convolutions a step."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from recurrent_layers import CONVOLUTIONAL, LAYERS
from small_models import randomize

from tensorflow_quantization.model.keras_internals import is_convolutional
from tensorflow_quantization.model.recurrence import cells_of, convolutional_step

PATHS = {"stack": ["cell.cells.0", "cell.cells.1"], "Bidirectional": ["forward_layer.cell", "backward_layer.cell"]}


@pytest.mark.parametrize("name", LAYERS)
def test_cells_by_path(name):
    layer = LAYERS[name]()
    assert list(cells_of(layer)) == PATHS.get(name, ["cell"])
    assert not any(is_convolutional(cell) for cell in cells_of(layer).values())


@pytest.mark.parametrize("rank", CONVOLUTIONAL)
def test_cells_of_convolutional_layers(rank):
    for layer in (CONVOLUTIONAL[rank](2, 3), layers.Bidirectional(CONVOLUTIONAL[rank](2, 3))):
        assert cells_of(layer)
        assert all(is_convolutional(cell) for cell in cells_of(layer).values())


class OwnCell(layers.LSTMCell):
    """A cell that may compute something else."""


@pytest.mark.parametrize(
    "make",
    [lambda: layers.Dense(2), lambda: layers.RNN(OwnCell(2)), lambda: layers.RNN([OwnCell(2), layers.GRUCell(2)])],
)
def test_other_layers_and_cells_have_none(make):
    assert cells_of(make()) == {}


@pytest.mark.parametrize("rank", CONVOLUTIONAL)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same", "use_bias": False},
        {"strides": 2, "padding": "same"},
        {"dilation_rate": 2},
        {"activation": "relu", "recurrent_activation": "hard_sigmoid", "dropout": 0.5, "recurrent_dropout": 0.5},
        {"data_format": "channels_first"},
    ],
    ids=str,
)
def test_a_step_computes_as_in_keras(rank, options):
    first = options.get("data_format") == "channels_first"
    if first and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow does not compute it on a CPU")
    rng, sizes = np.random.default_rng(0), [7] * rank
    layer = CONVOLUTIONAL[rank](3, 3, **options)
    layer.build((2, 4, *([2, *sizes] if first else [*sizes, 2])))
    cell = layer.cell
    randomize(layer)
    x = rng.normal(size=(2, *([2, *sizes] if first else [*sizes, 2]))).astype("float32")
    shape = cell.compute_output_shape(x.shape)[0]
    states = [ops.convert_to_tensor(rng.normal(size=shape).astype("float32")) for _ in range(2)]
    expected, of_keras = cell.call(x, states)
    actual, ours = convolutional_step(cell, x, states)
    for one, other in zip((actual, *ours), (expected, *of_keras), strict=True):
        np.testing.assert_allclose(*(ops.convert_to_numpy(y) for y in (one, other)), atol=1e-5)
