import dataclasses
import doctest
import functools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from tensorflow_quantization.quantizers import QuantizationScheme, numerics
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize
from tensorflow_quantization.quantizers.scale_groups import reduced_axes

schemes = st.builds(
    QuantizationScheme,
    bits=st.integers(2, 8),
    signed=st.booleans(),
    symmetric=st.booleans(),
    narrow_range=st.booleans(),
)
finite = st.floats(-1e6, 1e6, width=32)
tensors = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=finite)


def to_tensors(*arrays):
    return [ops.convert_to_tensor(np.float32(a)) for a in arrays]


def reference(x, scale, zero_point, scheme):
    """clip(round(x / scale) + zero point), in the words of the ONNX operator."""
    return np.clip(np.rint(np.float32(x) / np.float32(scale)) + zero_point, scheme.qmin, scheme.qmax)


@functools.cache
def onnx_session(dtype, axis):
    """QuantizeLinear and DequantizeLinear in ONNX Runtime: (x, scale, zero point) to (integers, floats)."""
    pytest.importorskip("onnxruntime")
    import onnx
    import onnxruntime

    integer = {"int8": onnx.TensorProto.INT8, "uint8": onnx.TensorProto.UINT8}[dtype]
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"], **attributes),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["y"], **attributes),
    ]
    inputs = [("x", onnx.TensorProto.FLOAT), ("scale", onnx.TensorProto.FLOAT), ("zero_point", integer)]
    outputs = [("q", integer), ("y", onnx.TensorProto.FLOAT)]
    graph = onnx.helper.make_graph(
        nodes,
        "qdq",
        [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in inputs],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
    )
    for value, rank in zip(graph.input, (2, 0 if axis is None else 1, 0 if axis is None else 1), strict=True):
        value.type.tensor_type.shape.Clear()
        for _ in range(rank):
            value.type.tensor_type.shape.dim.add()
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x, scale, zero_point: session.run(None, {"x": x, "scale": scale, "zero_point": zero_point})


@given(tensors, schemes)
def test_quantize_is_the_formula_of_onnx(x, scheme):
    scale, zero_point = numerics.scale_from_range(x.min(), x.max(), scheme, np)
    expected = reference(x, scale, zero_point, scheme)
    np.testing.assert_array_equal(numerics.quantize(x, scale, zero_point, scheme, np), expected)
    in_training = numerics.quantize(*to_tensors(x, scale, zero_point), scheme)
    np.testing.assert_array_equal(ops.convert_to_numpy(in_training), expected)


@given(tensors, schemes)
def test_numpy_and_keras_give_the_same_scale_and_zero_point(x, scheme):
    low, high = x.min(), x.max()
    for ours, theirs in zip(
        numerics.scale_from_range(*to_tensors(low, high), scheme),
        numerics.scale_from_range(low, high, scheme, np),
        strict=True,
    ):
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), np.float32(theirs))


@given(tensors, schemes)
def test_fake_quantize_gives_the_dequantized_integers(x, scheme):
    scale, zero_point = (np.float32(v) for v in numerics.scale_from_range(x.min(), x.max(), scheme, np))
    fake = ops.convert_to_numpy(fake_quantize(*to_tensors(x, scale, zero_point), scheme))
    expected = reference(x, scale, zero_point, scheme)
    np.testing.assert_array_equal(np.rint(fake / scale) + zero_point, expected)
    np.testing.assert_allclose(fake, (expected - zero_point) * scale, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("per_channel", [False, True], ids=["per_tensor", "per_channel"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "affine"])
@pytest.mark.parametrize("signed", [True, False], ids=["int8", "uint8"])
@given(
    x=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=finite),
    bits=st.integers(2, 8),
    narrow_range=st.booleans(),
)
def test_fake_quantize_equals_onnx_runtime_to_the_integer(signed, symmetric, per_channel, x, bits, narrow_range):
    axis = (-1,) if per_channel else None
    scheme = QuantizationScheme(bits, signed, symmetric, narrow_range, axis)
    low, high = numerics.weight_range(x, scheme, np)
    scale, zero_point = (np.float32(v) for v in numerics.scale_from_range(low, high, scheme, np))
    shape = (-1,) if per_channel else ()
    run = onnx_session(scheme.dtype, 1 if per_channel else None)
    integers, dequantized = run(x, scale.reshape(shape), zero_point.astype(scheme.dtype).reshape(shape))
    if not scheme.saturates:  # a file clips these integers after QuantizeLinear
        integers = np.clip(integers, scheme.qmin, scheme.qmax)
        dequantized = (integers.astype("float32") - zero_point) * scale

    ours = ops.convert_to_numpy(numerics.quantize(*to_tensors(x, scale, zero_point), scheme))
    np.testing.assert_array_equal(ours, integers)
    fake = ops.convert_to_numpy(fake_quantize(*to_tensors(x, scale, zero_point), scheme))
    np.testing.assert_array_equal(np.rint(fake / scale) + zero_point, integers)
    np.testing.assert_allclose(fake, dequantized, rtol=1e-6, atol=1e-6 * float(scale.max()))


@given(finite, finite, schemes)
def test_zero_is_always_exact(a, b, scheme):
    scale, zero_point = numerics.scale_from_range(np.float32(min(a, b)), np.float32(max(a, b)), scheme, np)
    q = numerics.quantize(np.float32(0), scale, zero_point, scheme, np)
    assert numerics.dequantize(q, scale, zero_point) == 0


@given(finite, finite, schemes)
def test_range_is_covered_to_half_a_quantum(a, b, scheme):
    low, high = np.float32(min(a, b)), np.float32(max(a, b))
    scale, zero_point = numerics.scale_from_range(low, high, scheme, np)
    assert scheme.qmin <= zero_point <= scheme.qmax
    tolerance = scale * (0.5 + 1e-4)
    assert (scheme.qmax - zero_point) * scale >= high - tolerance
    if not (scheme.symmetric and not scheme.signed):  # which has no negative values
        assert (scheme.qmin - zero_point) * scale <= low + tolerance


@given(tensors, schemes)
def test_error_inside_the_range_is_at_most_half_a_quantum(x, scheme):
    x = np.abs(x) if scheme.symmetric and not scheme.signed else x
    scale, zero_point = numerics.scale_from_range(x.min(), x.max(), scheme, np)
    y = numerics.dequantize(numerics.quantize(x, scale, zero_point, scheme, np), scale, zero_point)
    # The zero point of affine integers is rounded: either end may be clipped by another half.
    halves = 1 if scheme.symmetric else 2
    assert np.abs(y - x).max() <= scale * halves * 0.5 * (1 + 1e-3)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("xp", [np, ops], ids=["numpy", "keras"])
def test_range_of_zeros_has_a_scale_all_the_same(signed, symmetric, xp):
    scheme = QuantizationScheme(signed=signed, symmetric=symmetric)
    zero = xp.zeros((3,), "float32")
    scale, zero_point = numerics.scale_from_range(zero, zero, scheme, xp)
    assert ops.convert_to_numpy(scale).tolist() == [numerics.SCALE_OF_ZEROS] * 3
    integers = numerics.quantize(zero, scale, zero_point, scheme, xp)
    np.testing.assert_array_equal(ops.convert_to_numpy(integers), ops.convert_to_numpy(zero_point))


def test_ties_round_to_even():
    scheme = QuantizationScheme()
    q = numerics.quantize(np.float32([0.5, 1.5, 2.5, -0.5, -1.5, -2.5]), 1.0, 0.0, scheme, np)
    assert q.tolist() == [0, 2, 2, 0, -2, -2]


def test_zero_point_is_added_after_rounding():
    scheme = QuantizationScheme(signed=False, symmetric=False, narrow_range=False)
    x = np.float32([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5]])
    expected = [[3, 5, 5, 3, 1, 1]]
    assert numerics.quantize(x, 1.0, 3.0, scheme, np).tolist() == expected
    integers, _ = onnx_session("uint8", None)(x, np.array(1, "float32"), np.array(3, "uint8"))
    assert integers.tolist() == expected


@pytest.mark.parametrize(
    ("axis", "reduced", "shape"),
    [
        (None, (0, 1, 2, 3), (1, 1, 1, 1)),
        ((-1,), (0, 1, 2), (1, 1, 1, 5)),
        ((-2, -1), (0, 1), (1, 1, 4, 5)),
        ((0,), (1, 2, 3), (2, 1, 1, 1)),
    ],
)
def test_weight_range_keeps_the_channel_axes(axis, reduced, shape):
    scheme = QuantizationScheme(axis=axis)
    weight = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    assert reduced_axes(4, scheme) == reduced
    for xp in (np, ops):
        array = weight if xp is np else ops.convert_to_tensor(weight)
        low, high = (ops.convert_to_numpy(v) for v in numerics.weight_range(array, scheme, xp))
        assert low.shape == high.shape == shape
        np.testing.assert_array_equal(low, weight.min(axis=reduced, keepdims=True))
        np.testing.assert_array_equal(high, weight.max(axis=reduced, keepdims=True))


@pytest.mark.parametrize("axis", [None, (-1,)], ids=["per_tensor", "per_channel"])
@given(x=hnp.arrays(np.float32, (3, 4), elements=finite), scheme=schemes)
def test_the_scale_of_a_weight_is_the_one_of_its_range(axis, x, scheme):
    scheme = dataclasses.replace(scheme, axis=axis)
    for xp, weight in ((np, x), (ops, ops.convert_to_tensor(x))):
        expected = numerics.scale_from_range(*numerics.weight_range(weight, scheme, xp), scheme, xp)
        found = numerics.scale_of_weight(weight, scheme, xp)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))


def test_the_examples_in_the_docstrings_run():
    assert not doctest.testmod(numerics).failed


FLOAT8 = QuantizationScheme(floating=True)


def float8(x):
    """The nearest FP8 number, as another library finds it, saturated as QuantizeLinear does."""
    return np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype("float32")


@given(
    hnp.arrays(
        np.float32, 64, elements=st.one_of(st.floats(-500, 500, width=32), st.floats(-0.03125, 0.03125, width=32))
    )
)
def test_fp8_numbers_are_those_of_ml_dtypes(x):
    np.testing.assert_array_equal(numerics.quantize(x, np.float32(1), 0.0, FLOAT8, np), float8(x))
    found = numerics.quantize(*to_tensors(x, 1.0, 0.0), FLOAT8)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), float8(x))


def test_fp8_rounds_half_to_even_at_each_number_and_next_to_it():
    levels = FLOAT8.levels.astype("float32")
    half = (levels[1:] + levels[:-1]) / 2
    x = np.concatenate([levels, half, np.nextafter(half, np.float32(np.inf)), np.nextafter(half, np.float32(-np.inf))])
    for found in (numerics.nearest(x, FLOAT8, np), numerics.nearest(ops.convert_to_tensor(x), FLOAT8)):
        np.testing.assert_array_equal(ops.convert_to_numpy(found), float8(x))


def test_fp8_in_onnx_runtime():
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    x, scale = np.random.default_rng(0).normal(size=4000).astype("float32") * 40, np.float32(0.1)
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])],
        "fp8",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("q", TensorProto.FLOAT8E4M3FN, x.shape)],
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [scale]),
            helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    (q,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    found = q.view(ml_dtypes.float8_e4m3fn).astype("float32")
    np.testing.assert_array_equal(found, numerics.quantize(x, scale, 0.0, FLOAT8, np))
