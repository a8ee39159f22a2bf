import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme, own_numbers
from tensorflow_quantization.quantizers.activation import RANGES

IN_TORCH = keras.backend.backend() == "torch"
ON_HOST = IN_TORCH and ops.zeros(()).device.type == "cpu"
INT8 = QuantizationScheme()
AFFINE = QuantizationScheme(signed=False, symmetric=False, narrow_range=False)
FIXED = QuantizationScheme(narrow_range=False, symmetric=False, fixed=(1 / 256, -128))
FP8 = QuantizationScheme(floating=True)
finite = st.floats(-1e3, 1e3, width=32)


def test_numbers_are_those_that_the_variable_has_now():
    variable = keras.Variable([1.0, 2.0])
    value, xp = own_numbers.read(variable)
    assert xp is (np if ON_HOST else ops)
    assert isinstance(value, np.ndarray) is ON_HOST
    variable.assign([3.0, 4.0])
    np.testing.assert_array_equal(ops.convert_to_numpy(own_numbers.read(variable)[0]), [3, 4])


def test_a_stateless_scope_has_its_own_numbers():
    variable = keras.Variable([1.0, 2.0])
    with keras.StatelessScope([(variable, ops.convert_to_tensor([5.0, 6.0]))]):
        np.testing.assert_array_equal(ops.convert_to_numpy(own_numbers.read(variable)[0]), [5, 6])


@pytest.mark.skipif(not IN_TORCH, reason="of PyTorch")
def test_tensors_without_values_stay_tensors():
    import torch

    variable = keras.Variable([1.0, 2.0])
    with keras.device("meta"):
        assert own_numbers.read(variable)[1] is ops
    seen = []

    def compiled(x):
        seen.append(own_numbers.read(variable)[1])
        return x

    torch.compile(compiled, backend="eager")(torch.ones(1))
    assert seen == [ops]


def test_numbers_of_16_bits_stay_tensors():
    assert own_numbers.read(keras.Variable([1.0, 2.0], dtype="bfloat16"))[1] is ops


@pytest.mark.skipif(not ON_HOST, reason="elsewhere there is one way to compute")
@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("scheme", [INT8, AFFINE, FP8, FIXED], ids=str)
@given(batches=st.lists(st.lists(finite, min_size=2, max_size=9), min_size=1, max_size=4))
def test_numpy_and_tensors_give_the_same_numbers(scheme, trainable, ranges, batches):
    both = []
    for read in (own_numbers.read, lambda variable: (ops.convert_to_tensor(variable), ops)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(own_numbers, "read", read)
            quantizer = ActivationQuantizer(scheme, ranges, trainable=trainable)
            outputs = [quantizer(ops.convert_to_tensor(np.float32(x)), training=True) for x in batches]
        arrays = [ops.convert_to_numpy(a) for a in (*outputs, quantizer.scale(), *quantizer.variables)]
        both.append(np.concatenate([a.ravel() for a in arrays]))
    np.testing.assert_array_equal(*both)
