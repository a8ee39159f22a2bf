import keras
import numpy as np
import pytest
from keras import layers, ops

from tensorflow_quantization.model.precision import computing_in_float32, in_float32

POLICIES = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]


class Block(layers.Layer):
    """A layer within a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, dtype=self.dtype_policy)

    def call(self, x):
        return self.inner(x)


@pytest.mark.parametrize("make", [layers.Dense, Block], ids=["layer", "layer in a layer"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_layer_computes_in_float32_and_has_its_policy_again_afterwards(policy, make):
    layer = make(3, dtype=policy) if make is layers.Dense else make(dtype=policy)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    assert keras.backend.standardize_dtype(layer(x).dtype) == policy.removeprefix("mixed_")
    kernel = ops.convert_to_numpy(ops.cast(layer.weights[0], "float32"))
    with computing_in_float32([layer]):
        y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(y), x @ kernel, rtol=1e-5, atol=1e-6)
    assert layer.dtype_policy.name == policy
    assert keras.backend.standardize_dtype(layer(x).dtype) == policy.removeprefix("mixed_")


def test_the_policy_is_back_after_an_error():
    layer = layers.Dense(3, dtype="mixed_float16")
    with pytest.raises(RuntimeError), computing_in_float32([layer]):
        raise RuntimeError
    assert layer.dtype_policy.name == "mixed_float16"


def test_inputs_of_16_bits_become_float32_and_integers_stay():
    tensors = in_float32([np.ones(2, "float16"), np.ones(2, "int32"), np.ones(2, "float32")])
    assert [keras.backend.standardize_dtype(x.dtype) for x in tensors] == ["float32", "int32", "float32"]
