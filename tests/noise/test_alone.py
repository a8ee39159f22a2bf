import keras
import numpy as np
import pytest
import small_models

from tensorflow_quantization import calibrate, quantize_model, sensitivity
from tensorflow_quantization.mixed_precision.precision import Precision, spec_of


def data_for(model):
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, *model.inputs[0].shape[1:])).astype("float32")


def noise_of_partial_model(model, layer, precision, target, data):
    """The noise at the output of the model in which `quantize_model` quantizes one layer."""
    alone = quantize_model(model, "partial", quantization_spec=spec_of({layer: precision}), target=target)
    calibrate(alone, data, verbose=0)
    exact, got = (m.predict(data, verbose=0).astype(np.float64) for m in (model, alone))
    return ((got - exact) ** 2).sum() / (exact**2).sum()


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "onnxruntime"])
@pytest.mark.parametrize(
    "build", [small_models.cnn, small_models.residual, small_models.nested, small_models.shared_layer]
)
def test_noise_is_that_of_the_partially_quantized_model(build, target):
    model = build()
    data = data_for(model)
    result = sensitivity(model, data, target=target, weight_bits=4)
    for layer in result:
        expected = noise_of_partial_model(model, layer.layer, Precision(4, 8), target, data)
        assert layer.noise[Precision(4, 8)] == pytest.approx(expected, rel=0.15), layer.layer


def test_what_a_layer_reads_is_quantized_with_it():
    """The kernel is exact in 8 bits, so all noise is of the input."""
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(4, name="dense", use_bias=False)(inputs))
    model.layers[-1].kernel.assign(np.eye(4))
    data = data_for(model)
    for target in (None, "onnxruntime"):
        (layer,) = sensitivity(model, data, target=target)
        expected = noise_of_partial_model(model, "dense", Precision(8, 8), target, data)
        assert 0 < layer.noise[Precision(8, 8)] == pytest.approx(expected, rel=1e-3)
