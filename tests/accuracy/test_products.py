import doctest

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization.accuracy import products
from tensorflow_quantization.accuracy.products import every_position, product_form

CASES = {
    "dense": (layers.Dense(5, use_bias=False), "kernel", (7,)),
    "dense of a sequence": (layers.Dense(5, use_bias=False), "kernel", (6, 7)),
    "einsum": (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), "kernel", (4, 7)),
    "einsum of heads": (layers.EinsumDense("abcd,cde->abe", (None, 5)), "kernel", (4, 2, 3)),
    "conv1d": (layers.Conv1D(4, 3, use_bias=False), "kernel", (9, 3)),
    "causal": (layers.Conv1D(4, 3, padding="causal", dilation_rate=2, use_bias=False), "kernel", (9, 3)),
    "same": (layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False), "kernel", (8, 7, 3)),
    "dilated": (layers.Conv2D(4, (3, 2), padding="same", dilation_rate=2, use_bias=False), "kernel", (8, 7, 3)),
    "groups": (layers.Conv2D(6, 3, groups=3, use_bias=False), "kernel", (6, 6, 9)),
    "conv3d": (layers.Conv3D(4, 2, strides=(2, 1, 1), use_bias=False), "kernel", (4, 5, 4, 2)),
    "depthwise": (
        layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=2, use_bias=False),
        "kernel",
        (7, 8, 3),
    ),
    "depthwise 1d": (layers.DepthwiseConv1D(3, use_bias=False), "kernel", (7, 3)),
    "transposed": (layers.Conv2DTranspose(4, 3, strides=2, use_bias=False), "kernel", (4, 5, 3)),
    "transposed, stride above kernel": (layers.Conv1DTranspose(4, 2, strides=3, use_bias=False), "kernel", (4, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_times_matrix_are_the_outputs(case):
    made, name, shape = CASES[case]
    layer = type(made).from_config(made.get_config())
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype("float32")
    expected = keras.ops.convert_to_numpy(layer(x))
    kernel = keras.ops.convert_to_numpy(getattr(layer, name).value)
    form = product_form(layer, name, kernel.shape)
    assert np.array_equal(form.kernel(form.matrix(kernel)), kernel)
    outputs = form.rows(x, every_position) @ form.matrix(kernel)  # (G, N, M)
    outputs = np.moveaxis(outputs, 0, 1).reshape(len(x), -1, outputs.shape[0] * outputs.shape[2])
    expected = expected.reshape(outputs.shape[0], -1, outputs.shape[2]) if "einsum" not in case else expected
    if "transposed, stride" in case:  # without the zeros after the last value
        expected = expected[:, : outputs.shape[1]]
    np.testing.assert_allclose(outputs.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_a_separable_convolution_multiplies_twice():
    layer = layers.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, use_bias=False)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(layer(x))
    for name in ("depthwise_kernel", "pointwise_kernel"):
        kernel = keras.ops.convert_to_numpy(getattr(layer, name).value)
        form = product_form(layer, name, kernel.shape)
        x = form.rows(x, every_position) @ form.matrix(kernel)
        x = np.moveaxis(x, 0, 1).reshape(2, 6, 6, -1)
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4)


def test_chosen_positions_are_rows_of_all_positions():
    layer = layers.Conv2D(4, 3, padding="same")
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype("float32")
    layer.build(x.shape)
    form = product_form(layer, "kernel", (3, 3, 3, 4))
    every = form.rows(x, every_position)
    some = form.rows(x, lambda samples, positions: np.array([[1, 7], [0, positions - 1]]))
    assert np.array_equal(some, every[:, [30 + 7, 29]])


def test_the_form_of_a_custom_layer_is_not_known():
    assert product_form(layers.LayerNormalization(), "gamma", (3,)) is None


def test_examples():
    assert doctest.testmod(products, extraglobs={"keras": keras}).failed == 0
