import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees, layer_model, op_counts
from small_models import randomize


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (None, 6)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_of_any_rank(tmp_path, shape, use_bias):
    assert_agrees(layer_model(layers.Dense(5, use_bias=use_bias, activation="tanh"), shape), tmp_path / "m.onnx")


def test_dense_behind_a_convolution_takes_its_rows_in_the_order_of_the_file(tmp_path):
    inputs = keras.Input((6, 5, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3)(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(7)(layers.Dropout(0.5)(x))))
    counts = op_counts(assert_agrees(model, tmp_path / "m.onnx"))
    assert counts == {"Transpose": 1, "Conv": 1, "Reshape": 1, "Gemm": 1}


def test_a_dense_layer_on_an_image(tmp_path):
    inputs = keras.Input((6, 5, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.Conv2D(2, 3)(layers.Dense(5, activation="relu")(x))
    assert_agrees(randomize(keras.Model(inputs, x)), tmp_path / "m.onnx")


def test_a_shared_layer_shares_its_weights(tmp_path):
    inputs = keras.Input((4,))
    dense = layers.Dense(4)
    proto = assert_agrees(randomize(keras.Model(inputs, dense(dense(inputs)))), tmp_path / "m.onnx")
    assert len(proto.graph.initializer) == 2
    assert len({node.name for node in proto.graph.node}) == 2


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "uint8"])
def test_embedding(tmp_path, dtype):
    model = layer_model(layers.Embedding(5, 3), (4,), dtype=dtype)
    tokens = np.random.default_rng(0).integers(0, 5, (2, 4)).astype(dtype)
    assert_agrees(model, tmp_path / "m.onnx", [tokens])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_reversible_embedding(tmp_path, tied, cap):
    inputs = keras.Input((4,), dtype="int32")
    layer = layers.ReversibleEmbedding(7, 5, tie_weights=tied, logit_soft_cap=cap)
    model = randomize(keras.Model(inputs, layer(layers.Dense(5)(layer(inputs)), reverse=True)))
    assert_agrees(model, tmp_path / "m.onnx")
