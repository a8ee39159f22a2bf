import itertools

import keras
import numpy as np
import small_models
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.training import QuantizationLogger
from tensorflow_quantization.training.oscillation import Oscillations


@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(-2, 2)))
def test_an_oscillation_is_a_change_against_the_last_change(history):
    oscillations = Oscillations(history[0])
    for integers in history[1:]:
        oscillations.update(integers)
    for column, frequency in zip(history.T.astype(int), oscillations.frequency, strict=True):
        expected, last = 0.0, 0
        for before, after in itertools.pairwise(column):
            back = after != before and last * (after - before) < 0
            expected = 0.01 * back + 0.99 * expected
            last = after - before if after != before else last
        np.testing.assert_allclose(frequency, expected)


def test_logs_have_scales_and_the_share_of_oscillating_weights(images):
    quantized = quantize_model(small_models.cnn(), weight_bits=2, weight_ranges="learned")
    calibrate(quantized, images[0], verbose=0)
    quantized.compile(keras.optimizers.SGD(2.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logs = quantized.fit(*images, batch_size=2, epochs=3, verbose=0, callbacks=[QuantizationLogger()]).history
    assert 0 < logs["oscillating"][-1] < 1
    wrapper = quantized.get_layer("quant_conv")
    kernel = ops.convert_to_numpy(wrapper.layer.kernel)
    scale = wrapper.weight_quantizers["kernel"].parameters(kernel)[0].mean()
    np.testing.assert_allclose(logs["scale/quant_conv/kernel_quantizer"][-1], scale, rtol=1e-6)
    np.testing.assert_allclose(
        logs["scale/quant_conv/input_quantizer"][-1], wrapper.input_quantizers[0].parameters()[0], rtol=1e-6
    )


def test_a_model_at_rest_does_not_oscillate(images):
    quantized = calibrate(quantize_model(small_models.cnn()), images[0], verbose=0)
    quantized.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    logs = quantized.fit(*images, verbose=0, callbacks=[QuantizationLogger(scales=False)]).history
    assert sorted(logs) == ["loss", "oscillating"]
    assert logs["oscillating"] == [0.0]
