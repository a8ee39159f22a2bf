import keras
import numpy as np
import onnx
import pytest

from tensorflow_quantization import calibrate, check_onnx, export_onnx, quantize_model
from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes.tensorrt.cast_bytes_first import cast_bytes_first

FLOAT, INT32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32


def moved(*dtypes, shared=True):
    """A uint8 input that is transposed and reshaped, then cast to each dtype."""
    builder = Builder(17)
    x = builder.input("x", (2, 3), "uint8")

    def move():
        (y,) = builder.node("Transpose", [x], {"perm": [1, 0]}, "transpose")
        return builder.node("Identity", [y], {}, "identity")[0]

    y = move()
    casts = [builder.node("Cast", [y if shared else move()], {"to": dtype}, "cast")[0] for dtype in dtypes]
    builder.graph.outputs.extend(casts)
    return builder, y


def operators(builder):
    return [node.op_type for node in builder.graph]


def test_cast_comes_before_what_moves_bytes():
    builder, y = moved(FLOAT, FLOAT)
    assert cast_bytes_first(builder) == 2
    assert operators(builder)[:3] == ["Cast", "Transpose", "Identity"] and y.dtype == FLOAT
    assert list(builder.graph.outputs) == [y, y]


def test_casts_to_other_dtypes_stay():
    builder, _ = moved(INT32)
    assert cast_bytes_first(builder) == 1
    assert operators(builder) == ["Cast", "Transpose", "Identity", "Cast"]


@pytest.mark.parametrize("reader", ["Neg", None], ids=["arithmetic", "output"])
def test_bytes_that_something_else_reads_stay(reader):
    builder, y = moved(FLOAT)
    builder.graph.outputs.append(y if reader is None else builder.node(reader, [y], {}, "reader")[0])
    before = operators(builder)
    assert cast_bytes_first(builder) == 0 and operators(builder) == before


def test_model_of_bytes_has_no_findings(tmp_path):
    x = keras.Input((8, 8, 3), dtype="uint8")
    y = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(x))
    model = quantize_model(keras.Model(x, y), target="tensorrt")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")
    calibrate(model, images, verbose=0)
    path = export_onnx(model, tmp_path / "model.onnx", verify_with=images)
    assert not list(check_onnx(path, "tensorrt"))
