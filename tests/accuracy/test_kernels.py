import keras
import numpy as np
import pytest
import small_models
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tensorflow_quantization import QuantizationSpec, quantize_model
from tensorflow_quantization.accuracy.kernels import check_quantized, kernels_of


def only_kernel(layer, shape, bits=8):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    quantized = quantize_model(model, quantization_spec=QuantizationSpec(), weight_bits=bits)
    (kernel,) = kernels_of(quantized)
    return kernel


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), bits=st.sampled_from([2, 4, 8]), dtype=st.sampled_from(["float32", "float16"]))
def test_quantizing_again_gives_the_chosen_integers(seed, bits, dtype):
    rng = np.random.default_rng(seed)
    kernel = only_kernel(layers.Conv2D(5, 3, dtype=dtype), (6, 6, 4), bits)
    value = (rng.standard_normal((3, 3, 4, 5)) * 10.0 ** rng.uniform(-3, 2, 5)).astype("float32")
    value[..., 2] = 0.0
    kernel.wrapper.layer.kernel.assign(value)
    weight, scale, pinned = kernel.matrices()
    top = kernel.quantizer.scheme.qmax
    before = kernel.quantizer.integers(kernel.value)
    chosen = np.where(pinned, kernel.form.matrix(before), rng.integers(-top, top + 1, weight.shape))
    kernel.assign(np.where(pinned, weight, chosen * scale))
    assert np.array_equal(kernel.form.matrix(kernel.quantizer.integers(kernel.value)), chosen)
    assert np.array_equal(kernel.value[..., 2], np.zeros((3, 3, 4)))


def test_one_weight_of_each_channel_is_pinned():
    kernel = only_kernel(layers.Dense(6), (10,))
    _, _, pinned = kernel.matrices()
    assert np.array_equal(pinned.sum(axis=1), np.ones((1, 6)))


@pytest.mark.parametrize(
    ("layer", "shape"), [(layers.Dense(6), (40,)), (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (4, 40))]
)
def test_quantizing_again_gives_the_chosen_integers_of_blocks(layer, shape):
    inputs = keras.Input(shape)
    quantized = quantize_model(keras.Model(inputs, layer(inputs)), target="onnxruntime", block_size=16)
    (kernel,) = kernels_of(quantized)
    value = np.random.default_rng(0).standard_normal(layer.kernel.shape).astype("float32")
    value[:16, 0] = 0.0
    kernel.wrapper.layer.kernel.assign(value)
    weight, scale, pinned = kernel.matrices()
    assert weight.shape == scale.shape == pinned.shape == (1, 40, 6)
    assert all(pinned[0, rows].sum(axis=0).min() == 1 for rows in (slice(16), slice(16, 32), slice(32, 40)))
    assert pinned[0, :16, 0].all()
    chosen = np.random.default_rng(1).integers(-7, 8, weight.shape)
    chosen = np.where(pinned, kernel.form.matrix(kernel.quantizer.integers(kernel.value)), chosen)
    kernel.assign(np.where(pinned, weight, chosen * scale))
    assert np.array_equal(kernel.form.matrix(kernel.quantizer.integers(kernel.value)), chosen)


def test_low_rank_factors_stay():
    kernel = only_kernel(layers.Dense(6), (10,))
    dense = kernel.wrapper.layer
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.full((2, 6), 0.1))
    factors = [keras.ops.convert_to_numpy(v.value) for v in (dense.lora_kernel_a, dense.lora_kernel_b)]
    wanted = np.round(kernel.matrices()[0], 1)
    kernel.assign(wanted)
    np.testing.assert_allclose(kernel.value[None], wanted, atol=1e-6)
    for factor, before in zip((dense.lora_kernel_a, dense.lora_kernel_b), factors, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(factor.value), before)


def test_errors_say_what_to_call():
    with pytest.raises(TypeError, match="got list"):
        check_quantized([], calibrated=False)
    with pytest.raises(ValueError, match=r"Pass the result of quantize_model\(model\)"):
        check_quantized(small_models.cnn(), calibrated=False)
    with pytest.raises(ValueError, match=r"of 'quant_.*Call calibrate"):
        check_quantized(quantize_model(small_models.cnn()), calibrated=True)
