import keras
import numpy as np
import pytest
from keras import layers, ops

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.model.graph import LayerGraph

pytestmark = pytest.mark.skipif(keras.backend.backend() == "torch", reason="ops.take of PyTorch takes floats")

TABLE = np.arange(12.0, dtype="float32").reshape(6, 2)


class Rows(layers.Layer):
    """Not a layer of Keras."""

    def call(self, ids):
        return ops.take(TABLE, ids, axis=0)


class Lookup(keras.Model):
    """`look` computes with the inputs; then there is a layer to quantize."""

    def __init__(self, look):
        super().__init__()
        self.look, self.rows, self.head = look, Rows(name="rows"), layers.Dense(2, name="head")

    def call(self, inputs):
        return self.head(self.look(self, inputs))


IDS = np.array([[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("look", "x", "dtypes"),
    [
        (lambda model, ids: ops.take(TABLE, ids, axis=0), IDS, ["int32"]),
        (lambda model, ids: ops.take(TABLE, ops.reshape(ids[:, 1:] - 1, (-1, 2)), axis=0), IDS, ["int32"]),
        (lambda model, ids: model.rows(ids), IDS, ["int32"]),
        (lambda model, ids: ops.take(TABLE, ops.cast(ids, "int32"), axis=0), IDS, ["float32"]),
        (
            lambda model, x: ops.take(x["table"], x["ids"], axis=0),
            {"table": TABLE, "ids": IDS[0]},
            ["int32", "float32"],
        ),
        (lambda model, x: x, TABLE, ["float32"]),
    ],
    ids=["operation", "operations before", "layer", "cast", "one of two", "floats"],
)
def test_only_inputs_that_must_be_integers_are(look, x, dtypes):
    model = Lookup(look)
    model(x)
    assert [tensor.dtype for tensor in LayerGraph.trace(model).inputs] == dtypes


def test_a_quantized_model_of_ids_calibrates_and_exports(tmp_path):
    model = Lookup(lambda model, ids: ops.take(TABLE, ids, axis=0))
    expected = model(IDS)
    quantized = calibrate(quantize_model(model, target="onnxruntime"), IDS, verbose=0)
    np.testing.assert_allclose(quantized(IDS), expected, atol=0.2)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=IDS)
