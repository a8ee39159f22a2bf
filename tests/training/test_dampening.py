import keras
import numpy as np
import pytest
import small_models
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from small_models import gradients

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.quantizers import QuantizationScheme, WeightQuantizer
from tensorflow_quantization.training import Dampen
from tensorflow_quantization.training.dampening import dampening_loss

kernels = hnp.arrays(np.float32, (5, 3), elements=st.floats(-4, 4, width=16))


def quantizer_of(weight, bits, ranges):
    quantizer = WeightQuantizer(QuantizationScheme(bits, axis=-1), ranges)
    quantizer.build(weight.shape)
    if ranges == "learned":
        quantizer.start(0.6 * weight)  # clips some weights
    return quantizer


@settings(max_examples=25)
@given(kernels, st.sampled_from([2, 4, 8]), st.sampled_from(["minmax", "learned"]))
def test_loss_is_the_squared_distance_to_the_integers(weight, bits, ranges):
    quantizer = quantizer_of(weight, bits, ranges)
    scale = quantizer.parameters(weight)[0].astype("float64")
    limit = scale * quantizer.scheme.qmax
    expected = ((np.round(np.clip(weight, -limit, limit) / scale) * scale - np.clip(weight, -limit, limit)) ** 2).sum()
    got = float(ops.convert_to_numpy(dampening_loss(ops.convert_to_tensor(weight), quantizer)))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-8)


def test_gradient_pulls_to_the_integers_and_leaves_clipped_weights_alone():
    weight = np.float32([[0.3, -1.2], [0.6, 0.4], [9.0, 0.0]])
    quantizer = quantizer_of(weight, 4, "learned")
    quantizer.steps.assign([[1.0, 1.0]])
    (gradient,) = gradients(lambda w: dampening_loss(w, quantizer), weight)
    np.testing.assert_allclose(gradient, [[0.6, -0.4], [-0.8, 0.8], [0.0, 0.0]], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weight_ranges", ["minmax", "learned"])
def test_weights_come_to_rest_on_integers(images, weight_ranges):
    model = small_models.cnn()
    quantized = quantize_model(model, weight_bits=4, weight_ranges=weight_ranges)
    calibrate(quantized, images[0], verbose=0)
    quantized.compile(keras.optimizers.SGD(0.01), loss=lambda y, y_pred: 0.0 * ops.sum(y_pred))
    wrapper = quantized.get_layer("quant_conv")

    def distance():
        kernel, quantizer = ops.convert_to_numpy(wrapper.layer.kernel), wrapper.weight_quantizers["kernel"]
        return np.abs(quantizer.dequantized(kernel) - kernel).mean()

    before = distance()
    quantized.fit(*images, batch_size=2, epochs=4, verbose=0, callbacks=[Dampen(10.0)])
    assert distance() < 0.5 * before


def test_loss_rises_along_a_cosine_and_ends_with_training(images):
    quantized = calibrate(quantize_model(small_models.cnn(), weight_bits=4), images[0], verbose=0)
    own = keras.regularizers.L2(0.0)
    kernel = quantized.get_layer("quant_conv").layer.kernel
    kernel.regularizer = own
    quantized.compile(keras.optimizers.SGD(0.0), loss=lambda y, y_pred: 0.0 * ops.sum(y_pred))
    losses = quantized.fit(*images, epochs=3, verbose=0, callbacks=[Dampen(2.0)]).history["loss"]
    expected = sum(
        float(
            ops.convert_to_numpy(dampening_loss(ops.convert_to_tensor(w.layer.kernel), w.weight_quantizers["kernel"]))
        )
        for w in (quantized.get_layer("quant_conv"), quantized.get_layer("quant_dense"))
    )
    factors = [2.0 * (1 - np.cos(np.pi * share)) / 2 for share in (1 / 3, 2 / 3, 1)]
    np.testing.assert_allclose(losses, np.array(factors) * expected, rtol=1e-4)
    assert kernel.regularizer is own
    assert quantized.losses == [] or float(sum(quantized.losses)) == 0.0


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match="strength must not be negative, got -1"):
        Dampen(-1)
