"""Keras' own `quantize` and our quantizers exclude each other."""

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import QuantizationSpec, calibrate, export_litert, export_onnx, quantize_model
from tensorflow_quantization.wrappers.layers import DenseQuantizeWrapper

REFUSED = "is quantized by quantize_model already, and Keras' own quantize would change the weights"


def network():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3, name="second")(layers.Dense(5, name="first")(inputs)))


def attention():
    inputs = keras.Input((6, 4))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs))


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
@pytest.mark.parametrize("make", [network, attention])
def test_quantized_model_refuses_and_stays_as_it_was(mode, make):
    model = quantize_model(make(), target="onnxruntime")
    before = [w.path for w in model.weights]
    with pytest.raises(ValueError, match=REFUSED):
        model.quantize(mode)
    assert [w.path for w in model.weights] == before


def test_float_layers_of_a_quantized_model_stay_as_they_were():
    spec = QuantizationSpec()
    spec.add("second")
    model = quantize_model(network(), "partial", spec)
    with pytest.raises(ValueError, match=REFUSED):
        model.quantize("int8")
    assert model.get_layer("first").quantization_mode is None


def test_loaded_model_refuses(tmp_path):
    quantize_model(network()).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=REFUSED):
        keras.saving.load_model(tmp_path / "m.keras").quantize("int8")


def test_one_wrapper_and_the_layer_in_it_refuse():
    wrapper = quantize_model(network()).get_layer("quant_first")
    for layer in (wrapper, wrapper.layer):
        with pytest.raises(ValueError, match=REFUSED):
            layer.quantize("int8")


def test_layer_with_a_quantized_policy_is_not_wrapped():
    with pytest.raises(ValueError, match=r"Layer 'dense' is quantized already, by Keras' own quantize\('int8'\)"):
        DenseQuantizeWrapper(layers.Dense(3, dtype="int8_from_float32", name="dense"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [network, attention])
def test_model_that_keras_quantized_is_neither_quantized_nor_exported(make, tmp_path):
    model = make()
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"quantized already, by Keras' own model.quantize\('int8'\)"):
        quantize_model(model)
    with pytest.raises(ValueError, match=r"is quantized by Keras' own model.quantize\('int8'\)"):
        export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_quantized_policy_set_on_a_wrapped_layer_is_found_before_any_work(tmp_path):
    model = quantize_model(network(), target="litert")
    with pytest.raises(ValueError, match=REFUSED):
        model.get_layer("quant_first").layer.dtype_policy = "int8_from_float32"
    with pytest.raises(ValueError, match=r"Keras' own quantize\('int8'\) changed the weights of model"):
        calibrate(model, np.zeros((2, 6)), verbose=0)
    with pytest.raises(ValueError, match=r"Keras' own model.quantize\('int8'\)"):
        export_onnx(model, tmp_path / "m.onnx")
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match=r"Keras' own model.quantize\('int8'\)"):
            export_litert(model, tmp_path / "m.tflite")
