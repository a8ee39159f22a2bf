import doctest

import keras
import numpy as np
import pytest
from keras import layers, ops

from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.wrappers import find_wrapper, products
from tensorflow_quantization.wrappers.products import summed_inputs

BLOCKS = QuantizationScheme(4, block_size=16)


def test_the_examples_in_the_docstrings_run():
    assert not doctest.testmod(products).failed


def wrapped(layer, *shapes, **kwargs):
    wrapper = find_wrapper(layer)(layer, quantize_inputs=False, weight_scheme=BLOCKS, **kwargs)
    wrapper.build(*shapes)
    return wrapper


@pytest.mark.parametrize(
    ("layer", "shapes", "inputs"),
    [
        (layers.Dense(3), [(None, 40)], (40,)),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), [(None, 4, 20)], (20,)),
        (layers.EinsumDense("abde,dec->abc", (None, 6)), [(None, 4, 2, 9)], (18,)),
        (layers.EinsumDense("abc,bcd->abd", (4, 3)), [(None, 4, 20)], ()),  # a product for each b
        (layers.MultiHeadAttention(2, 8), [(None, 4, 20)] * 2, (20, 20, 20, 16)),
        (layers.GroupQueryAttention(8, 4, 2), [(None, 4, 20)] * 2, (20, 20, 20, 32)),
        (layers.Conv2D(3, 1), [(None, 4, 4, 40)], ()),
        (layers.LSTM(3), [(None, 4, 40)], ()),
        (layers.Embedding(3, 4), [(None, 4)], ()),
    ],
)
def test_inputs_that_an_output_sums(layer, shapes, inputs):
    layer.build(*shapes)
    assert summed_inputs(layer) == inputs


def test_a_wrapper_multiplies_by_weights_in_blocks():
    wrapper = wrapped(layers.Dense(3), (None, 40))
    x = np.random.default_rng(0).normal(size=(2, 40)).astype("float32")
    kernel = ops.convert_to_numpy(wrapper.layer.kernel)
    expected = x @ wrapper.weight_quantizers["kernel"].dequantized(kernel)
    np.testing.assert_allclose(ops.convert_to_numpy(wrapper(x)), expected, rtol=1e-5, atol=1e-6)
    assert not wrapper.activation_quantizers


def test_all_projections_of_attention_have_blocks():
    wrapper = wrapped(layers.MultiHeadAttention(2, 8), (None, 4, 20), (None, 4, 20), quantize_products=False)
    schemes = [part.weight_quantizers["kernel"].scheme for part in wrapper.parts.values()]
    assert [scheme.block_size for scheme in schemes] == [16] * 4
    assert not wrapper.activation_quantizers


def test_a_wrapper_with_blocks_survives_its_config():
    wrapper = wrapped(layers.Dense(3), (None, 40))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(wrapper))
    assert copy.weight_scheme == BLOCKS


def test_other_layers_refuse_blocks_and_say_which_can():
    with pytest.raises(ValueError, match=r"Conv2D 'image' cannot have weights in blocks.*Dense, EinsumDense"):
        wrapped(layers.Conv2D(3, 1, name="image"), (None, 4, 4, 40))
    with pytest.raises(ValueError, match="EinsumDense"):
        wrapped(layers.EinsumDense("abc,bcd->abd", (4, 3)), (None, 4, 20))
