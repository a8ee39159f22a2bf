import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees, layer_model


@pytest.mark.parametrize(
    ("mode", "shape"), [("one_hot", (3,)), ("one_hot", (1,)), ("one_hot", ()), ("multi_hot", (3,)), ("count", (3,))]
)
def test_category_encoding(tmp_path, mode, shape):
    model = layer_model(layers.CategoryEncoding(6, output_mode=mode), shape, dtype="int32")
    x = np.random.default_rng(0).integers(0, 6, (4, *shape)).astype("int32")
    assert_agrees(model, tmp_path / "m.onnx", [x])


@pytest.mark.parametrize("mode", ["int", "one_hot"])
def test_discretization(tmp_path, mode):
    layer = layers.Discretization([-1.0, 0.0, 0.5], output_mode=mode)
    x = np.asarray([[-2, -1, -0.5], [0, 0.5, 3]], "float32")
    assert_agrees(layer_model(layer, (3,)), tmp_path / "m.onnx", [x])
