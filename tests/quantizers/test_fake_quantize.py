import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from small_models import gradients

from tensorflow_quantization.quantizers import QuantizationScheme, numerics
from tensorflow_quantization.quantizers.fake_quantize import fake_quantize, fake_quantize_learned, float32

SCHEMES = {
    "int8": QuantizationScheme(),
    "int4": QuantizationScheme(bits=4),
    "uint8": QuantizationScheme(signed=False, narrow_range=False),
    "affine": QuantizationScheme(signed=False, symmetric=False, narrow_range=False),
    "fp8": QuantizationScheme(floating=True),
}


def inside_and_outside(scheme, zero_point, scale):
    """Values in the middle of quanta, within the range and up to twice as far, and where they are within it."""
    quanta = np.arange(scheme.qmin - zero_point - 9, scheme.qmax - zero_point + 9, 3) + 0.7
    inside = (quanta > scheme.qmin - zero_point) & (quanta < scheme.qmax - zero_point)
    return (quanta * scale).astype("float32"), inside


def tensors(*arrays):
    return [ops.convert_to_tensor(np.float32(a)) for a in arrays]


def upstream_gradient(like, seed=0):
    return np.random.default_rng(seed).normal(size=like.shape).astype("float32")


@pytest.mark.parametrize("name", SCHEMES)
def test_gradient_passes_inside_the_range_and_stops_where_values_are_clipped(name):
    scheme, scale = SCHEMES[name], np.float32(0.1)
    zero_point = np.float32(30 if name == "affine" else 0)
    x, inside = inside_and_outside(scheme, zero_point, scale)
    upstream = upstream_gradient(x)
    assert inside.any()
    assert not inside.all()
    *parameters, weights = tensors(scale, zero_point, upstream)
    (gradient,) = gradients(lambda x: ops.sum(fake_quantize(x, *parameters, scheme) * weights), x)
    np.testing.assert_allclose(gradient, np.where(inside, upstream, 0), rtol=1e-6)


def test_gradient_mask_is_per_channel():
    scheme = QuantizationScheme(axis=-1)
    x = np.float32([[0.5, 0.5], [-2.0, -2.0]])
    parameters = tensors([[0.001, 1.0]], [[0, 0]])  # the first channel covers ±0.127
    (gradient,) = gradients(lambda x: ops.sum(fake_quantize(x, *parameters, scheme)), x)
    assert gradient.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", ["int8", "uint8", "affine"])
def test_gradient_passes_at_the_limits_themselves(name, learned):
    scheme, scale = SCHEMES[name], np.float32(0.5)  # a power of two: the limits are exact
    zero_point = 30 if name == "affine" else 0
    limits = np.float32([scheme.qmin - zero_point, scheme.qmax - zero_point]) * scale
    x = np.float32([limits[0] - 0.25, *limits, limits[1] + 0.25])
    parameters = tensors(scale, zero_point)
    function = fake_quantize_learned if learned else fake_quantize
    more = (0.5,) if learned else ()
    (gradient,) = gradients(lambda x: ops.sum(function(x, *parameters, scheme, *more)), x)
    assert gradient.tolist() == [0, 1, 1, 0]


def test_no_gradient_goes_to_scale_and_zero_point():
    x = np.float32([0.3, 100.0, -100.0])
    found = gradients(
        lambda x, scale, zero_point: ops.sum(fake_quantize(x, scale, zero_point, SCHEMES["int8"])),
        x,
        np.float32(0.1),
        np.float32(0),
    )
    assert found[0].tolist() == [1, 0, 0]
    assert found[1] == found[2] == 0


@given(
    x=hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-40, 40, width=32)),
    scale=st.floats(0.0625, 2, width=32),
    name=st.sampled_from(sorted(SCHEMES)),
    gradient_scale=st.sampled_from([1.0, 0.01]),
)
def test_learned_step_has_the_gradient_of_lsq(x, scale, name, gradient_scale):
    scheme, scale = SCHEMES[name], np.float32(scale)
    zero_point = np.float32(30 if name == "affine" else 0)
    low, high = scheme.qmin - zero_point, scheme.qmax - zero_point
    upstream = upstream_gradient(x)
    ratio = x / scale
    below, above = ratio <= low, ratio >= high
    # Equation 3 of arXiv:1902.08153.
    to_step = np.where(below, low, np.where(above, high, numerics.nearest(ratio, scheme, np) - ratio))
    expected = gradient_scale * np.sum(upstream * to_step)

    zeros, weights = tensors(zero_point, upstream)

    def loss(x, scale):
        return ops.sum(fake_quantize_learned(x, scale, zeros, scheme, gradient_scale) * weights)

    to_x, to_scale = gradients(loss, x, scale)
    np.testing.assert_allclose(to_scale, expected, rtol=1e-3, atol=1e-3)
    at_the_edge = np.isclose(ratio, low) | np.isclose(ratio, high)
    np.testing.assert_allclose(
        to_x[~at_the_edge], np.where(below | above, 0, upstream)[~at_the_edge], rtol=1e-5, atol=1e-6
    )


@given(
    x=hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-40, 40, width=32)),
    scale=st.floats(0.0625, 2, width=32),
    zero_point=st.integers(0, 255),
    offset=st.floats(-8, 8, width=32),
)
def test_learned_offset_has_the_gradient_of_lsq_plus(x, scale, zero_point, offset):
    scheme, scale, offset = SCHEMES["affine"], np.float32(scale), np.float32(offset)
    ratio = x / scale + zero_point
    below, above = ratio <= scheme.qmin, ratio >= scheme.qmax
    at_the_edge = np.isclose(ratio, scheme.qmin, atol=1e-3) | np.isclose(ratio, scheme.qmax, atol=1e-3)
    upstream = np.where(at_the_edge, 0, upstream_gradient(x))
    # Equations 5 and 6 of arXiv:2004.09576, with the limits of the integers less what the zero point was at first.
    start = zero_point + offset / scale
    inside = numerics.nearest(x / scale, scheme, np) - x / scale
    to_step = np.where(below, scheme.qmin - start, np.where(above, scheme.qmax - start, inside))
    zeros, weights = tensors(zero_point, upstream)

    def loss(x, scale, offset):
        return ops.sum(fake_quantize_learned(x, scale, zeros, scheme, 0.5, offset) * weights)

    to_x, to_scale, to_offset = gradients(loss, x, scale, offset)
    np.testing.assert_allclose(to_x, np.where(below | above, 0, upstream), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_scale, 0.5 * np.sum(upstream * to_step), rtol=1e-3, atol=2e-2)
    np.testing.assert_allclose(to_offset, 0.5 * np.sum(upstream * (below | above)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SCHEMES)
def test_learned_step_has_the_same_values_as_a_fixed_one(name):
    scheme = SCHEMES[name]
    parameters = tensors(*numerics.scale_from_range(-1.0, 2.0, scheme, np))
    (x,) = tensors(np.random.default_rng(0).normal(size=1000))
    fixed = ops.convert_to_numpy(fake_quantize(x, *parameters, scheme))
    learned = ops.convert_to_numpy(fake_quantize_learned(x, *parameters, scheme, 0.01))
    np.testing.assert_array_equal(learned, fixed)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_float32_widens_half_precision_and_leaves_the_rest(dtype):
    x = ops.cast(ops.convert_to_tensor([1.5, -2.0]), dtype)
    assert ops.convert_to_numpy(float32(x)).tolist() == [1.5, -2.0]
    assert float32(x).dtype == ops.convert_to_tensor(np.float32(0)).dtype
    if dtype == "float32":
        assert float32(x) is x


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", ["int8", "uint8", "affine"])
def test_rectified_values_and_gradients_are_those_of_a_relu_before(name, learned):
    scheme, scale = SCHEMES[name], np.float32(0.1)
    zero_point = np.float32(30 if name == "affine" else 0)
    x = np.float32([*np.random.default_rng(0).normal(size=200) * 12, 0.0, 0.04, 1e3, -1e3])
    zeros, weights = tensors(zero_point, upstream_gradient(x))
    function, more = (fake_quantize_learned, (0.5,)) if learned else (fake_quantize, ())

    def loss(x, scale, rectify):
        y = function(x if rectify else ops.relu(x), scale, zeros, scheme, *more, rectify=rectify)
        return ops.sum(y * weights)

    found, expected = (gradients(lambda x, s, r=rectify: loss(x, s, r), x, scale) for rectify in (True, False))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
    parameters = tensors(scale)
    pairs = zip(tensors(x, np.maximum(x, 0)), (True, False), strict=True)
    values = [function(v, *parameters, zeros, scheme, *more, rectify=rectify) for v, rectify in pairs]
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, values))
