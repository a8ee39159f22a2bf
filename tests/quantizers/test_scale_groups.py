"""Blocks of weights against a loop over each block, channel and element."""

import doctest
import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from small_models import gradients

from tensorflow_quantization.quantizers import QuantizationScheme, WeightQuantizer, scale_groups
from tensorflow_quantization.quantizers.scale_groups import grouped, spread, ungrouped

#: Shapes and channel axes: Dense; projections of attention; an equation with the channels first.
KERNELS = [((40, 3), (-1,)), ((32, 2, 3), (-2, -1)), ((5, 4, 6), (-1,)), ((4, 3, 7), (-3,)), ((9, 2), (-1,))]


def test_the_examples_in_the_docstrings_run():
    assert not doctest.testmod(scale_groups).failed


def kinds(shape, axis, rng):
    """Weights that are hard to quantize, by name."""
    normal = rng.standard_normal(shape).astype("float32")
    zeros = normal.copy()
    zeros[: max(1, shape[0] // 2)] = 0
    yield "normal", normal
    yield "all zero in some blocks", zeros
    yield "constant", np.full(shape, -0.3, "float32")
    yield "heavy tails", rng.standard_t(1, shape).astype("float32")
    yield "tiny", normal * np.float32(1e-20)


def expected(weight, axis, size, qmax):
    """Scale and integer of each element, from the definition."""
    axis = {a % weight.ndim for a in axis}
    summed = [a for a in range(weight.ndim) if a not in axis]
    positions = list(itertools.product(*(range(weight.shape[a]) for a in summed)))
    scale, integers = np.zeros(weight.shape, "float32"), np.zeros(weight.shape, "int8")
    for channel in itertools.product(*(range(weight.shape[a]) for a in sorted(axis))):
        for start in range(0, len(positions), size):
            block = []
            for position in positions[start : start + size]:
                index = dict(zip(summed, position, strict=True)) | dict(zip(sorted(axis), channel, strict=True))
                block.append(tuple(index[a] for a in range(weight.ndim)))
            greatest = max(abs(weight[i]) for i in block)
            step = np.float32(greatest / np.float32(qmax))
            step = step if step > 1e-12 else np.float32(2.0**-7)
            for i in block:
                scale[i], integers[i] = step, np.clip(np.rint(weight[i] / step), -qmax, qmax)
    return scale, integers


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(KERNELS), st.sampled_from([16, 32, 64]), st.sampled_from([4, 8]), st.integers(0, 2**16))
def test_each_block_of_each_channel_has_the_scale_of_its_greatest_weight(kernel, size, bits, seed):
    shape, axis = kernel
    for kind, weight in kinds(shape, axis, np.random.default_rng(seed)):
        quantizer = WeightQuantizer(QuantizationScheme(bits, axis=axis, block_size=size))
        scale, integers = expected(weight, axis, size, 2 ** (bits - 1) - 1)
        found, zero_point = quantizer.parameters(weight)
        np.testing.assert_array_equal(found, scale, err_msg=kind)
        assert not zero_point.any()
        np.testing.assert_array_equal(quantizer.integers(weight), integers, err_msg=kind)
        np.testing.assert_array_equal(quantizer.dequantized(weight), integers.astype("float32") * scale)
        computed = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(weight)))
        ties = np.abs(np.abs(weight / scale) % 1 - 0.5) < 1e-4  # XLA divides by multiplying with the reciprocal
        np.testing.assert_array_equal(np.rint(computed / scale)[~ties], integers[~ties], err_msg=kind)


@pytest.mark.parametrize(("shape", "axis"), KERNELS)
def test_ungrouping_is_the_inverse_of_grouping(shape, axis):
    weight = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    for scheme in (QuantizationScheme(axis=axis, block_size=16), QuantizationScheme(axis=axis)):
        groups, axes = grouped(weight, scheme, np)
        np.testing.assert_array_equal(ungrouped(groups, shape, scheme, np), weight)
        numbers = groups.max(axis=axes, keepdims=True)
        assert np.broadcast_shapes(spread(numbers, shape, scheme, np).shape, shape) == shape


def test_one_block_is_a_channel():
    weight = np.random.default_rng(0).standard_normal((16, 5)).astype("float32")
    block, channel = (WeightQuantizer(QuantizationScheme(4, axis=-1, block_size=size)) for size in (16, None))
    np.testing.assert_array_equal(block.integers(weight), channel.integers(weight))
    np.testing.assert_array_equal(block.scales(weight), channel.scales(weight))


def test_a_block_with_an_outlier_leaves_the_others_their_steps():
    weight = np.random.default_rng(0).standard_normal((128, 4)).astype("float32")
    weight[5] = 50.0
    errors = [
        np.abs(WeightQuantizer(QuantizationScheme(4, axis=-1, block_size=size)).dequantized(weight) - weight)[
            32:
        ].mean()
        for size in (32, None)
    ]
    assert errors[0] < errors[1] / 5


def test_the_gradient_passes_to_every_weight():
    weight = np.random.default_rng(0).standard_normal((40, 3)).astype("float32")
    quantizer = WeightQuantizer(QuantizationScheme(4, axis=-1, block_size=16))
    upstream = np.arange(120, dtype="float32").reshape(40, 3)
    (gradient,) = gradients(lambda w: ops.sum(quantizer(w) * ops.convert_to_tensor(upstream)), weight)
    scale, _ = quantizer.parameters(weight)
    extreme = np.abs(quantizer.integers(weight)) == 7
    np.testing.assert_allclose(gradient[~extreme], upstream[~extreme])
    assert (np.abs(weight)[extreme] >= 6.4 * scale[extreme]).all()


def test_learned_steps_have_one_change_for_each_block():
    weight = np.random.default_rng(0).standard_normal((40, 3)).astype("float32")
    quantizer = WeightQuantizer(QuantizationScheme(4, axis=-1, block_size=16), "learned")
    quantizer.build(weight.shape)
    assert tuple(quantizer.step_change.shape) == (3, 1, 3)
    quantizer.start(weight)
    before, _ = quantizer.parameters(weight)
    change = np.zeros((3, 1, 3), "float32")
    change[2, 0, 1] = 0.5  # of the shorter block of the second channel
    quantizer.step_change.assign(change)
    ratio = quantizer.parameters(weight)[0] / before
    np.testing.assert_allclose(ratio[32:, 1], 1.5)
    ratio[32:, 1] = 1.0
    np.testing.assert_allclose(ratio, 1.0)
    computed = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(weight)))
    np.testing.assert_allclose(computed, quantizer.dequantized(weight), atol=1e-6)


def test_a_learned_step_gets_the_gradient_of_its_block_alone():
    weight = np.random.default_rng(0).standard_normal((32, 2)).astype("float32")
    quantizer = WeightQuantizer(QuantizationScheme(4, axis=-1, block_size=16), "learned")
    quantizer.build(weight.shape)
    quantizer.start(weight)
    upstream = np.zeros((32, 2), "float32")
    upstream[20, 1] = 1.0

    def loss(change):
        with keras.StatelessScope([(quantizer.step_change, change)]):
            return ops.sum(quantizer(ops.convert_to_tensor(weight)) * ops.convert_to_tensor(upstream))

    (gradient,) = gradients(loss, np.zeros((2, 1, 2), "float32"))
    assert gradient[1, 0, 1] != 0
    assert np.count_nonzero(gradient) == 1
