import keras
import numpy as np
import pytest
from keras import layers, ops
from litert_files import functional, quantized

from tensorflow_quantization.export import ExportError
from tensorflow_quantization.export.litert import export_litert


def in_numpy(x):
    import tensorflow as tf

    return tf.numpy_function(np.tanh, [x], tf.float32)


def log_determinant(x):
    return ops.slogdet(ops.transpose(x, (0, 3, 1, 2)))[1]


def in_a_nested_model(x):
    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, layers.Lambda(in_numpy, output_shape=x.shape[1:], name="tanh")(inputs), name="inner")(x)


@pytest.mark.parametrize(
    ("steps", "operator", "layer"),
    [
        ([layers.Lambda(log_determinant, output_shape=(), name="log")], "LogMatrixDeterminant", "'(quant_)?log'"),
        (
            [layers.Lambda(in_numpy, (6, 6, 4), name="tanh"), layers.Conv2D(2, 3, name="after")],
            "PyFunc",
            "'(quant_)?tanh'",
        ),
        ([in_a_nested_model, layers.Conv2D(2, 3, name="after")], "PyFunc", "'(quant_)?inner/(quant_)?tanh'"),
    ],
)
def test_an_operation_that_litert_does_not_have_is_refused_with_its_layer(steps, operator, layer, tmp_path):
    model = functional(layers.Conv2D(4, 3), *steps)
    with pytest.raises(ExportError, match=f"LiteRT has no operator {operator}, which {layer} computes. Use other"):
        export_litert(quantized(model), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
