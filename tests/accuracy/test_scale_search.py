import numpy as np
import pytest
from accuracy_networks import decibels, depthwise, images, outputs, quantized, rounding_problem, squared_errors
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorflow_quantization import post_training_quantize
from tensorflow_quantization.accuracy import round_weights
from tensorflow_quantization.accuracy.coordinate_descent import rounded_to_moment
from tensorflow_quantization.accuracy.kernels import kernels_of
from tensorflow_quantization.accuracy.scale_search import Part, best_scale, refitted_scale
from tensorflow_quantization.quantizers import QuantizationScheme

BITS = st.integers(2, 7)


def problem(seed, bits, size=6, heavy=False, zeros=False):
    """The weight with its greatest values pinned, their scale, and the moment of the inputs."""
    weight, _, _, moment = rounding_problem(seed, size=size, heavy=heavy)
    if zeros:
        weight[:, :, 0] = 0.0
    scheme = QuantizationScheme(bits=bits)
    scale = np.abs(weight).max(axis=1, keepdims=True) / scheme.qmax
    pinned = np.abs(weight) == np.abs(weight).max(axis=1, keepdims=True)
    return Part(weight, pinned, moment), np.where(scale > 0, scale, 1.0), scheme


def rounded(part, scale, scheme):
    return rounded_to_moment(part.weight, np.broadcast_to(scale, part.weight.shape), part.pinned, part.moment, scheme)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), bits=BITS, heavy=st.booleans(), zeros=st.booleans())
def test_the_best_scale_is_no_worse_than_that_of_the_greatest_weight(seed, bits, heavy, zeros):
    part, scale, scheme = problem(seed, bits, heavy=heavy, zeros=zeros)
    found = best_scale([part], scale, scheme)
    errors = [squared_errors(rounded(part, s, scheme), part.weight, s, part.moment) for s in (found, scale)]
    assert (errors[0] <= errors[1] + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), bits=BITS, heavy=st.booleans(), zeros=st.booleans(), size=st.sampled_from([6, 80]))
def test_the_greatest_weight_becomes_the_greatest_integer(seed, bits, heavy, zeros, size):
    part, scale, scheme = problem(seed, bits, size, heavy, zeros)
    found = best_scale([part], scale, scheme)
    integers = rounded(part, found, scheme)
    found = refitted_scale([part], [integers], found)
    greatest = np.abs(integers).max(axis=1)
    assert (greatest == np.where((part.weight == 0.0).all(axis=1), 0, scheme.qmax)).all()
    assert (found > 0.0).all()
    kept = np.abs(integers * found).max(axis=1, keepdims=True) / scheme.qmax
    np.testing.assert_allclose(kept[greatest[:, None] > 0], found[greatest[:, None] > 0], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), bits=BITS, heavy=st.booleans(), factor=st.floats(0.9, 1.1))
def test_no_other_scale_is_better_for_the_integers(seed, bits, heavy, factor):
    part, scale, scheme = problem(seed, bits, heavy=heavy)
    integers = rounded(part, scale, scheme)
    best = refitted_scale([part], [integers], scale)
    errors = [squared_errors(integers, part.weight, s, part.moment) for s in (best, best * factor)]
    assert (errors[0] <= errors[1] + 1e-9).all()


def test_the_parts_of_a_kernel_share_a_scale():
    part, scale, scheme = problem(0, bits=3, size=8)
    apart = [
        Part(part.weight[:, half], part.pinned[:, half], part.moment[:, half, half]) for half in (slice(4), slice(4, 8))
    ]
    block_moment = np.zeros_like(part.moment)
    for half in (slice(4), slice(4, 8)):
        block_moment[:, half, half] = part.moment[:, half, half]
    whole = part._replace(moment=block_moment)
    np.testing.assert_allclose(best_scale(apart, scale, scheme), best_scale([whole], scale, scheme))
    integers = rounded(whole, scale, scheme)
    halves = [integers[:, :4], integers[:, 4:]]
    np.testing.assert_allclose(refitted_scale(apart, halves, scale), refitted_scale([whole], [integers], scale))


def test_the_searched_scales_are_those_of_the_rounded_kernel():
    model = round_weights(quantized(depthwise(), target="onnxruntime", weight_bits=4), images())
    for kernel in kernels_of(model):
        weight, scale, _ = kernel.matrices()
        np.testing.assert_allclose(weight / scale, np.round(weight / scale), atol=1e-4)
        assert (np.abs(np.round(weight / scale)).max(axis=1) == 7).all()


@pytest.mark.parametrize("block_size", [None, 16])
def test_a_searched_scale_loses_less_than_the_greatest_weight_dictates(monkeypatch, block_size):
    from tensorflow_quantization.accuracy import rounding

    model, x = depthwise(), images(seed=5)
    expected = outputs(model, x)
    arguments = {"target": "onnxruntime", "weight_bits": 3 if block_size is None else 4, "block_size": block_size}
    searched = post_training_quantize(model, images(), **arguments, verbose=0)
    monkeypatch.setattr(rounding, "_best_scale", lambda kernel, parts, scale: None)
    dictated = post_training_quantize(model, images(), **arguments, verbose=0)
    assert decibels(expected, outputs(searched, x)) > decibels(expected, outputs(dictated, x)) + 0.3
