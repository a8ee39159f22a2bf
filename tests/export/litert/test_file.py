import keras
import pytest
import small_models
from keras import layers
from litert_files import functional, quantized

from tensorflow_quantization.export import ExportError
from tensorflow_quantization.export.litert import export_litert


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_an_output_that_a_layer_in_float_reads(tmp_path):
    """With another `io_dtype`, TensorFlow's converter writes a file with which LiteRT ends the process."""
    x = keras.Input((10,))
    y = layers.Dense(8)(x)
    model = quantized(small_models.randomize(keras.Model(x, [y, layers.LayerNormalization()(y)])))
    data = small_models.data_for(model)
    with pytest.raises(ExportError, match=r"also read by a layer that computes in float.*Leave io_dtype out"):
        export_litert(model, tmp_path / "m.tflite", io_dtype="int8", verify_with=data)
    export_litert(model, tmp_path / "m.tflite", verify_with=data)


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_outputs_that_stay_float_are_told(tmp_path):
    model = quantized(functional(layers.Dense(4), layers.LayerNormalization(), shape=(6,)))
    with pytest.warns(UserWarning, match="1 of the inputs and outputs stay float32 in spite of io_dtype='int8'"):
        export_litert(model, tmp_path / "m.tflite", io_dtype="int8")
