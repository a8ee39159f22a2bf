"""Each wrapper of the library, on each layer, in one table: quantizers, axes, numbers, saving."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import assert_same_arrays, randomize

from tensorflow_quantization import (
    BaseQuantizeWrapper,
    NonWeightedBaseQuantizeWrapper,
    QuantizationSpec,
    quantize_model,
)
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.wrappers import find_wrapper
from tensorflow_quantization.wrappers import layers as wrapper_layers

IMAGE, VOLUME, SEQUENCE, VECTOR = (6, 6, 3), (4, 4, 4, 2), (8, 3), (5,)
#: Layer, shape of its input, kernels with their channel axes (counted from the end).
WEIGHTED = {
    "Dense": (lambda: layers.Dense(4), VECTOR, {"kernel": (-1,)}),
    "Dense of a sequence": (lambda: layers.Dense(4, activation="relu"), SEQUENCE, {"kernel": (-1,)}),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4)), SEQUENCE, {"kernel": (-2, -1)}),
    "EinsumDense, outputs first": (lambda: layers.EinsumDense("ab,cb->ac", 4), VECTOR, {"kernel": (-2,)}),
    "Conv1D": (lambda: layers.Conv1D(4, 3), SEQUENCE, {"kernel": (-1,)}),
    "Conv2D": (lambda: layers.Conv2D(4, 3, padding="same"), IMAGE, {"kernel": (-1,)}),
    "Conv2D, groups": (lambda: layers.Conv2D(6, 3, groups=3), IMAGE, {"kernel": (-1,)}),
    "Conv3D": (lambda: layers.Conv3D(4, 3), VOLUME, {"kernel": (-1,)}),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3), SEQUENCE, {"kernel": (-2, -1)}),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), IMAGE, {"kernel": (-2, -1)}),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(4, 3),
        SEQUENCE,
        {"depthwise_kernel": (-2, -1), "pointwise_kernel": (-1,)},
    ),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(4, 3),
        IMAGE,
        {"depthwise_kernel": (-2, -1), "pointwise_kernel": (-1,)},
    ),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(4, 3), SEQUENCE, {"kernel": (-2,)}),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3, strides=2), IMAGE, {"kernel": (-2,)}),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(4, 3), VOLUME, {"kernel": (-2,)}),
}
UNWEIGHTED = {
    "AveragePooling2D": (lambda: layers.AveragePooling2D(2), [IMAGE]),
    "GlobalAveragePooling2D": (layers.GlobalAveragePooling2D, [IMAGE]),
    "MaxPooling2D": (layers.MaxPooling2D, [IMAGE]),
    "Activation": (lambda: layers.Activation("silu"), [IMAGE]),
    "BatchNormalization": (layers.BatchNormalization, [IMAGE]),
    "Concatenate": (layers.Concatenate, [IMAGE, IMAGE, IMAGE]),
    "Add": (layers.Add, [IMAGE, IMAGE]),
    "Multiply": (layers.Multiply, [IMAGE, IMAGE]),
}


def data(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")


def test_table_above_is_complete():
    wrappers = {name for name in vars(wrapper_layers) if name.endswith("QuantizeWrapper") and "Base" not in name}
    tested = {find_wrapper(make()).__name__ for make, *_ in [*WEIGHTED.values(), *UNWEIGHTED.values()]}
    assert tested == wrappers
    assert wrappers <= set(BaseQuantizeWrapper.CHILD_WRAPPERS)


@pytest.mark.parametrize("name", WEIGHTED)
def test_kernels_are_quantized_per_output_channel(name):
    make, shape, kernels = WEIGHTED[name]
    wrapper = find_wrapper(make())(make(), quantize_inputs=False, weight_scheme=QuantizationScheme(bits=4))
    x = data(shape)
    quantized = ops.convert_to_numpy(wrapper(x))
    assert {kernel: q.scheme.axis for kernel, q in wrapper.weight_quantizers.items()} == kernels

    # The layer itself, with kernels rounded by hand.
    layer = wrapper.layer
    for kernel, axes in kernels.items():
        weight = ops.convert_to_numpy(getattr(layer, kernel))
        shared = tuple(i for i in range(weight.ndim) if i - weight.ndim not in axes)
        scale = np.abs(weight).max(axis=shared, keepdims=True) / 7
        getattr(layer, kernel).assign(np.rint(weight / scale) * scale)
    np.testing.assert_allclose(quantized, ops.convert_to_numpy(layer(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WEIGHTED)
def test_output_channels_do_not_share_a_scale(name):
    """Making one output channel's weights a thousandth leaves them as precise as they were."""
    make, shape, kernels = WEIGHTED[name]
    wrapper = find_wrapper(make())(make(), quantize_inputs=False)
    wrapper.build((None, *shape))
    kernel = list(kernels)[-1]
    weight = ops.convert_to_numpy(getattr(wrapper.layer, kernel))
    index = [slice(None)] * weight.ndim
    for axis in kernels[kernel]:
        index[axis] = 0
    small = weight.copy()
    small[tuple(index)] /= 1000
    quantizer = wrapper.weight_quantizers[kernel]
    found = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(small)))[tuple(index)]
    greatest = np.abs(small[tuple(index)]).max()
    assert np.abs(found - small[tuple(index)]).max() <= greatest / 127 * 0.501


SEPARABLE = {
    "plain": {},
    "strided": {"strides": 2, "padding": "same"},
    "dilated": {"dilation_rate": 2, "activation": "relu"},
    "with multiplier": {"depth_multiplier": 2, "use_bias": False, "activation": "tanh"},
}


@pytest.mark.parametrize("name", SEPARABLE)
@pytest.mark.parametrize("rank", [1, 2])
def test_what_flows_within_a_separable_convolution_is_rounded(name, rank):
    layer = getattr(layers, f"SeparableConv{rank}D")(4, 3, **SEPARABLE[name])
    x = data((8, 9, 3)[-rank - 1 :])
    wrapper = find_wrapper(layer)(layer, quantize_inputs=False, inner_scheme=QuantizationScheme(bits=4))
    y = ops.convert_to_numpy(wrapper(x, training=True))
    low, high = (float(v) for v in wrapper.inner_quantizer.range.numpy())

    # The halves as layers of their own.
    kernels = {kernel: q(getattr(layer, kernel).value) for kernel, q in wrapper.weight_quantizers.items()}
    arguments = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    depthwise = getattr(layers, f"DepthwiseConv{rank}D")(
        3, depth_multiplier=layer.depth_multiplier, use_bias=False, **arguments
    )
    pointwise = getattr(layers, f"Conv{rank}D")(4, 1, use_bias=False, activation=layer.activation)
    depthwise.build((None, *x.shape[1:]))
    depthwise.kernel.assign(kernels["depthwise_kernel"])
    between = ops.convert_to_numpy(depthwise(x))
    np.testing.assert_allclose([low, high], [between.min(), between.max()], rtol=1e-5)
    scale = max(-low, high) / 7
    between = np.rint(between / scale) * scale
    pointwise.build(between.shape)
    pointwise.kernel.assign(kernels["pointwise_kernel"])
    np.testing.assert_allclose(y, ops.convert_to_numpy(pointwise(between)), atol=1e-5)


def test_separable_convolution_of_ones_own_stays_in_one_piece():
    class Doubled(layers.SeparableConv2D):
        def call(self, inputs):
            return 2 * super().call(inputs)

    with pytest.raises(ValueError, match="Doubled 'mine' overrides `call`"):
        find_wrapper(Doubled(4, 3))(Doubled(4, 3, name="mine"), inner_scheme=QuantizationScheme())
    model = keras.Sequential([keras.Input(IMAGE), Doubled(4, 3)])
    x = data(IMAGE)
    found = quantize_model(model, target="openvino")(x)
    np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(model(x)), atol=0.1)


def test_separable_convolution_rounds_weights_in_float32_and_computes_in_half():
    found = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        layer = layers.SeparableConv2D(4, 3, dtype=policy)
        wrapper = find_wrapper(layer)(layer, quantize_inputs=False, inner_scheme=QuantizationScheme())
        y = wrapper(data(IMAGE))
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
        found.append(ops.convert_to_numpy(ops.cast(y, "float32")))
    np.testing.assert_allclose(found[1], found[0], atol=0.05)


def test_separable_convolution_with_inner_quantizer_trains_with_its_regularizers_and_saves(tmp_path):
    inputs = keras.Input(IMAGE)
    layer = layers.SeparableConv2D(4, 3, depthwise_regularizer="l2", activity_regularizer="l2")
    layer = find_wrapper(layer)(layer, inner_scheme=QuantizationScheme())
    model = keras.Model(inputs, layer(inputs))
    x = data(IMAGE)
    model(x)
    assert len(model.losses) == 2
    before = [ops.convert_to_numpy(w).copy() for w in model.trainable_weights]
    model.compile("sgd", "mse")
    model.fit(x, ops.convert_to_numpy(model(x)) + 1, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.abs(ops.convert_to_numpy(weight) - old).max() > 0, weight.path
    assert layer.inner_quantizer.seen
    model.save(tmp_path / "m.keras")
    assert_same_arrays(keras.models.load_model(tmp_path / "m.keras").predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("name", UNWEIGHTED)
def test_inputs_are_quantized_and_nothing_else(name):
    make, shapes = UNWEIGHTED[name]
    wrapper = find_wrapper(make())(make())
    assert isinstance(wrapper, NonWeightedBaseQuantizeWrapper)
    inputs = [data(shape, seed) for seed, shape in enumerate(shapes)]
    y = wrapper(inputs if len(inputs) > 1 else inputs[0])
    assert wrapper.weight_quantizers == {}
    assert len(wrapper.activation_quantizers) == len(inputs)
    rounded = [np.rint(np.clip(x * (127 / 6), -127, 127)).astype("float32") * np.float32(6 / 127) for x in inputs]
    expected = wrapper.layer(rounded if len(inputs) > 1 else rounded[0])
    np.testing.assert_allclose(ops.convert_to_numpy(y), ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*WEIGHTED, *UNWEIGHTED])
def test_quantized_layer_trains_saves_and_loads(name, tmp_path):
    make, shapes = UNWEIGHTED[name] if name in UNWEIGHTED else (WEIGHTED[name][0], [WEIGHTED[name][1]])
    inputs = [keras.Input(shape) for shape in shapes]
    model = randomize(keras.Model(inputs, make()(inputs if len(inputs) > 1 else inputs[0])))
    spec = QuantizationSpec()
    spec.add(model.layers[-1].name)
    q_model = quantize_model(model, "partial", spec)
    wrapper = q_model.layers[-1]
    assert wrapper.name == f"quant_{model.layers[-1].name}"

    x = [data(shape, seed) for seed, shape in enumerate(shapes)]
    trainable = [ops.convert_to_numpy(w).copy() for w in q_model.trainable_weights]
    q_model.compile(keras.optimizers.SGD(0.1), "mse")
    q_model.fit(x, ops.convert_to_numpy(q_model(x)) + 1, verbose=0)
    assert all(quantizer.seen for quantizer in wrapper.activation_quantizers)
    for weight, before in zip(q_model.trainable_weights, trainable, strict=True):
        assert np.abs(ops.convert_to_numpy(weight) - before).max() > 0, weight.path

    q_model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_arrays(loaded.predict(x, verbose=0), q_model.predict(x, verbose=0))
    assert loaded.layers[-1].get_config() | {"layer": None} == wrapper.get_config() | {"layer": None}
