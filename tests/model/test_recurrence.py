"""What is known of recurrent cells: their products, and ConvLSTM in two convolutions a step."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from recurrent_layers import CONVOLUTIONAL, LAYERS
from small_models import randomize

from tensorflow_quantization.model.keras_internals import is_convolutional
from tensorflow_quantization.model.recurrence import (
    cells_of,
    convolutional_step,
    is_projected_once,
    projected_step,
    projection,
)

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


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(3),
        lambda: layers.LSTM(3, use_bias=False, activation="gelu", recurrent_activation="hard_sigmoid"),
        lambda: layers.LSTM(3, dropout=0.5, recurrent_dropout=0.5),
        lambda: layers.GRU(3),
        lambda: layers.GRU(3, use_bias=False),
        lambda: layers.GRU(3, reset_after=False, activation="relu"),
        lambda: layers.GRU(3, reset_after=False, use_bias=False),
        lambda: layers.SimpleRNN(3),
        lambda: layers.SimpleRNN(3, use_bias=False, activation=None),
        lambda: layers.RNN(layers.GRUCell(3)),
    ],
)
def test_all_steps_projected_at_once(make):
    layer, rng = make(), np.random.default_rng(0)
    layer.build((2, 4, 5))
    randomize(layer)
    assert is_projected_once(layer)
    x = rng.normal(size=(2, 4, 5)).astype("float32")
    zeros = keras.tree.flatten(layer.get_initial_state(2))
    states = expected = [y + rng.normal(size=y.shape).astype("float32") for y in zeros]
    projected = projection(layer.cell, x)
    for t in range(4):
        of_keras, expected = layer.cell.call(x[:, t], expected)
        ours, states = projected_step(layer.cell, projected[:, t], states)
        for one, other in zip((ours, *states), (of_keras, *expected), strict=True):
            np.testing.assert_allclose(*(ops.convert_to_numpy(y) for y in (one, other)), atol=1e-5)


class OwnLoop(layers.LSTM):
    """A layer that may loop in its own way."""


@pytest.mark.parametrize("make", [lambda: OwnLoop(2), lambda: layers.RNN(OwnCell(2)), lambda: layers.RNN([OwnCell(2)])])
def test_code_of_the_user_runs_as_it_is(make):
    assert not is_projected_once(make())
