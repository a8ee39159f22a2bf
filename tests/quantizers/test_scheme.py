import json

import numpy as np
import pytest

from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.numerics import scale_from_range
from tensorflow_quantization.quantizers.scheme import check_bits


@pytest.mark.parametrize(
    ("arguments", "limits", "dtype", "saturates"),
    [
        ({}, (-127, 127), "int8", False),
        ({"narrow_range": False}, (-128, 127), "int8", True),
        ({"signed": False, "narrow_range": False}, (0, 255), "uint8", True),
        ({"signed": False}, (1, 255), "uint8", False),
        ({"bits": 4}, (-7, 7), "int8", False),
        ({"bits": 4, "narrow_range": False}, (-8, 7), "int8", False),
        ({"bits": 2}, (-1, 1), "int8", False),
        ({"bits": 7, "signed": False, "narrow_range": False}, (0, 127), "uint8", False),
    ],
)
def test_integers_of_a_scheme(arguments, limits, dtype, saturates):
    scheme = QuantizationScheme(**arguments)
    assert (scheme.qmin, scheme.qmax) == limits
    assert scheme.dtype == dtype
    assert scheme.saturates is saturates


@pytest.mark.parametrize(
    ("arguments", "zero_point"),
    [
        ({}, 0),
        ({"signed": False, "narrow_range": False}, 0),
        ({"signed": False}, 1),
        ({"floating": True}, 0),
        ({"fixed": (1 / 256, -128), "symmetric": False}, -128),
        ({"symmetric": False}, None),
    ],
)
def test_zero_point_of_a_scheme_is_of_each_range(arguments, zero_point):
    scheme = QuantizationScheme(**arguments)
    assert scheme.zero_point == zero_point
    found = {float(scale_from_range(np.float32(low), np.float32(2.0), scheme, np)[1]) for low in (-3.0, -0.5, 0.0)}
    assert found == {zero_point} if zero_point is not None else len(found) == 3


@pytest.mark.parametrize("bits", [1, 9, 0, -8, 8.0, "8", None, True])
def test_bits_out_of_range_are_refused_with_what_they_were(bits):
    with pytest.raises(ValueError, match=f"weight_bits must be an integer from 2 to 8, got {bits!r}"):
        check_bits(bits, "weight_bits")
    with pytest.raises(ValueError, match="bits must be an integer from 2 to 8"):
        QuantizationScheme(bits=bits)


@pytest.mark.parametrize("axis", [None, -1, (-1,), (-2, -1), [3]])
def test_survives_json(axis):
    scheme = QuantizationScheme(bits=4, signed=False, symmetric=False, narrow_range=False, axis=axis)
    assert QuantizationScheme.from_config(json.loads(json.dumps(scheme.get_config()))) == scheme


def test_axis_is_a_tuple_however_it_is_given():
    assert QuantizationScheme(axis=-1).axis == QuantizationScheme(axis=[-1]).axis == (-1,)


def test_text_names_integers_and_kind():
    assert str(QuantizationScheme(bits=4)) == "int4 symmetric"
    assert str(QuantizationScheme(signed=False, symmetric=False)) == "uint8 affine"


def test_numbers_of_fp8():
    scheme = QuantizationScheme(floating=True)
    assert (scheme.qmin, scheme.qmax, scheme.dtype, scheme.saturates) == (-448, 448, "float8_e4m3fn", True)
    assert scheme.levels[[0, -1]].tolist() == [-448, 448] and len(scheme.levels) == 253
    assert QuantizationScheme.from_config(json.loads(json.dumps(scheme.get_config()))) == scheme


@pytest.mark.parametrize("other", [{"bits": 4}, {"signed": False}, {"symmetric": False}, {"fixed": (1.0, 0)}])
def test_fp8_has_one_form(other):
    with pytest.raises(ValueError, match="have 8 bits, are signed and symmetric"):
        QuantizationScheme(floating=True, **other)


@pytest.mark.parametrize("size", [8, 24, 0, -32, 32.0, "32", True])
def test_block_sizes_are_powers_of_two_of_at_least_16(size):
    with pytest.raises(ValueError, match=f"block_size must be a power of two of at least 16.*got {size!r}"):
        QuantizationScheme(4, block_size=size)


@pytest.mark.parametrize("others", [{"bits": 3}, {"symmetric": False}, {"signed": False}, {"floating": True}])
def test_blocks_are_for_symmetric_integers_of_4_or_8_bits(others):
    with pytest.raises(ValueError, match="Weights in blocks are signed, symmetric integers of 4 or 8 bits"):
        QuantizationScheme(**{"bits": 8, **others}, block_size=32)


def test_blocks_survive_json():
    scheme = QuantizationScheme(bits=4, axis=-1, block_size=32)
    assert QuantizationScheme.from_config(json.loads(json.dumps(scheme.get_config()))) == scheme
