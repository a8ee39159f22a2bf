import keras
import numpy as np
import onnx
import pytest
import small_models
from keras import layers, ops
from onnx import numpy_helper
from small_models import randomize

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.wrappers.bias import following_normalization, input_quantizer, integer_bias

#: What float32 leaves of a whole number of at most a few thousand steps.
WHOLE = 0.01


def calibrated(model, **arguments):
    q_model = quantize_model(randomize(model), **arguments)
    return calibrate(q_model, small_models.data_for(q_model, 16), verbose=0)


def image(*blocks, shape=(8, 8, 3)):
    inputs = keras.Input(shape)
    x = inputs
    for layer in blocks:
        x = layer(x)
    return keras.Model(inputs, x)


def steps_in_file(path):
    """Each bias, of Conv or added to a matrix product, in steps of input scale times weight scale."""
    graph = onnx.load(path).graph
    arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}

    def value_of(name):
        if name in arrays:
            return arrays[name].astype(np.float64)
        integers, scale = (arrays[i] for i in makers[name].input[:2])  # as OpenVINO gets it
        return integers * scale.astype(np.float64)

    found = []
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) == 3:
            product, bias = node, node.input[2]
        elif node.op_type == "Add" and getattr(makers.get(node.input[0]), "op_type", "") == "MatMul":
            product, bias = makers[node.input[0]], node.input[1]
        else:
            continue
        sources = [makers[name] for name in product.input[:2]]
        sources = [makers[s.input[0]] if s.op_type in ("Reshape", "Transpose") else s for s in sources]
        data_scale, weight_scale = (arrays[source.input[1]].astype(np.float64) for source in sources)
        found.append(value_of(bias) / (data_scale * weight_scale))
    return found


def normalization(**arguments):
    return layers.BatchNormalization(**arguments)


NETWORKS = {
    "own bias": lambda: image(layers.Conv2D(4, 3), layers.ReLU()),
    "normalization": lambda: image(layers.Conv2D(4, 3, use_bias=False), normalization(), layers.ReLU()),
    "both": lambda: image(layers.Conv2D(4, 3), normalization()),
    "no shift": lambda: image(layers.Conv2D(4, 3, use_bias=False), normalization(center=False)),
    "no factor": lambda: image(layers.Conv2D(4, 3, use_bias=False), normalization(scale=False)),
    "statistics only": lambda: image(layers.Conv2D(4, 3, use_bias=False), normalization(scale=False, center=False)),
    "activation before it": lambda: image(layers.Conv2D(4, 3, activation="relu"), normalization()),
    "one dimension": lambda: image(layers.Conv1D(4, 3, use_bias=False), normalization(), shape=(8, 3)),
    "three dimensions": lambda: image(layers.Conv3D(4, 3, use_bias=False), normalization(), shape=(8, 8, 8, 3)),
    "depthwise": lambda: image(layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), normalization()),
    "transposed": lambda: image(layers.Conv2DTranspose(4, 3, use_bias=False), normalization()),
    "separable": lambda: image(layers.SeparableConv2D(4, 3), layers.ReLU()),
    "separable, normalized": lambda: image(layers.SeparableConv2D(4, 3, use_bias=False), normalization()),
    "dense": lambda: image(layers.Dense(4, use_bias=False), normalization(), shape=(6,)),
    "sequential": lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), normalization()]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_biases_in_the_file_are_whole_steps(tmp_path, name):
    model = calibrated(NETWORKS[name](), target="tensorrt")
    export_onnx(model, tmp_path / "m.onnx", verify_with=small_models.data_for(model))
    (steps,) = steps_in_file(tmp_path / "m.onnx")
    assert np.abs(steps).max() > 1
    np.testing.assert_allclose(steps, np.round(steps), atol=WHOLE)


@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
@pytest.mark.parametrize("build", [small_models.cnn, small_models.residual, small_models.sequential])
def test_every_bias_of_a_network_is(tmp_path, build, target):
    model = calibrated(build(), target=target)
    export_onnx(model, tmp_path / "m.onnx", verify_with=small_models.data_for(model))
    steps = steps_in_file(tmp_path / "m.onnx")
    assert steps
    for found in steps:
        np.testing.assert_allclose(found, np.round(found), atol=WHOLE)


def test_by_the_formula():
    model = calibrated(image(layers.Conv2D(4, 3, use_bias=False, name="c"), normalization(name="n")))
    wrapper, norm = model.get_layer("quant_c"), model.get_layer("n")
    kernel, gamma, beta, mean, variance = (
        ops.convert_to_numpy(v).astype(np.float64)
        for v in (wrapper.layer.kernel, norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    gamma[0] = -gamma[0]
    norm.gamma.assign(gamma)
    factor = gamma / np.sqrt(variance + norm.epsilon)
    scale = float(wrapper.input_quantizers[0].parameters()[0])
    step = scale * np.abs(kernel).max(axis=(0, 1, 2)) / 127 * factor
    exact = beta - mean * factor
    expected = np.round(exact / step) * step
    assert not np.allclose(exact, expected, rtol=0, atol=1e-6)
    bias = ops.convert_to_numpy(integer_bias(wrapper)) * factor + exact
    np.testing.assert_allclose(bias, expected, rtol=1e-5, atol=1e-6)


def test_products_and_bias_are_whole_in_keras():
    """What Keras computes lies on the steps, so an integer kernel finds the same."""
    model = calibrated(image(layers.Conv2D(4, 3, name="c"), normalization(name="n")))
    wrapper, norm = model.get_layer("quant_c"), model.get_layer("n")
    y = ops.convert_to_numpy(model(small_models.data_for(model)))
    factor = ops.convert_to_numpy(norm.gamma / ops.sqrt(norm.moving_variance + norm.epsilon))
    scales = ops.convert_to_numpy(wrapper.weight_quantizers["kernel"].scale(wrapper.layer.kernel)).ravel()
    steps = y / (float(wrapper.input_quantizers[0].parameters()[0]) * scales * factor)
    np.testing.assert_allclose(steps, np.round(steps), atol=2 * WHOLE)


def test_training_does_not_round():
    model = calibrated(image(layers.Conv2D(4, 3, name="c")))
    x = small_models.data_for(model)
    wrapper = model.get_layer("quant_c")
    quantized = wrapper.input_quantizers[0](x)
    kernel = wrapper.weight_quantizers["kernel"](wrapper.layer.kernel)
    expected = ops.conv(quantized, kernel, padding="valid") + wrapper.layer.bias
    training = ops.convert_to_numpy(model(x, training=True))
    np.testing.assert_allclose(training, ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-6)
    assert not np.allclose(training, ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-6)


def test_gradients_are_those_without_rounding():
    model = calibrated(image(layers.Conv2D(4, 3, name="c")))
    x = small_models.data_for(model)
    found = [
        small_models.gradients(lambda x, training=training: ops.sum(ops.sin(model(x, training=training))), x)[0]
        for training in (True, False)
    ]
    assert np.isfinite(found[1]).all()
    np.testing.assert_allclose(found[1], found[0], atol=0.05 * np.abs(found[0]).max())


def test_channel_normalized_to_nothing(tmp_path):
    model = calibrated(image(layers.Conv2D(4, 3, use_bias=False), normalization(name="n")))
    norm = model.get_layer("n")
    norm.gamma.assign([0.0, 1e-30, 1e-6, 1.0])
    x = small_models.data_for(model)
    y = ops.convert_to_numpy(model(x))
    assert np.isfinite(y).all()
    beta = ops.convert_to_numpy(norm.beta)
    np.testing.assert_allclose(y[..., :2], np.broadcast_to(beta[:2], y[..., :2].shape), rtol=1e-6)
    export_onnx(model, tmp_path / "m.onnx", verify_with=x)


def test_same_after_saving(tmp_path):
    model = calibrated(small_models.cnn(), target="onnxruntime")
    x = small_models.data_for(model)
    model.save(tmp_path / "m.keras")
    small_models.assert_same_arrays(keras.models.load_model(tmp_path / "m.keras")(x), model(x))


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = calibrated(small_models.cnn())
        y = model(small_models.data_for(model))
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(ops.convert_to_numpy(y)).all()


# Where nothing is rounded


def test_no_bias():
    model = calibrated(image(layers.Conv2D(4, 3, use_bias=False, name="c"), layers.ReLU()))
    assert integer_bias(model.get_layer("quant_c")) is None


def test_range_that_nobody_set_says_nothing():
    model = quantize_model(image(layers.Conv2D(4, 3, name="c")))
    wrapper = model.get_layer("quant_c")
    wrapper.layer.bias.assign(np.linspace(0.1, 0.2, 4))
    small_models.assert_same_arrays(integer_bias(wrapper), wrapper.layer.bias)


def test_wrapper_outside_of_a_model(own_wrappers):
    from tensorflow_quantization.wrappers.layers import DenseQuantizeWrapper

    wrapper = DenseQuantizeWrapper(layers.Dense(3), quantize_inputs=False)
    wrapper(np.ones((2, 4), "float32"))
    assert integer_bias(wrapper) is None


# Where the neighbours are


def test_normalization_that_is_not_alone_is_not_part_of_the_kernel():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="c")(inputs)
    model = quantize_model(keras.Model(inputs, layers.Add()([normalization()(x), x])))
    assert following_normalization(model.get_layer("quant_c")) is None


def test_normalization_of_another_axis_is_not_part_of_the_kernel():
    model = calibrated(image(layers.Dense(4, name="d"), normalization(axis=1), shape=(5, 5, 3)))
    wrapper = model.get_layer("quant_d")
    assert following_normalization(wrapper) is None
    assert integer_bias(wrapper).shape == (4,)


def test_quantizer_of_the_producer_is_found_through_what_moves_values():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(name="relu")(layers.Conv2D(4, 3, name="first")(inputs))
    x = layers.ZeroPadding2D(1)(layers.MaxPooling2D()(x))
    x = layers.Dropout(0.5)(layers.Conv2D(4, 3, name="second", activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(3, name="third")(layers.Flatten()(x)))
    model = calibrated(model, target="onnxruntime")
    second, third = (model.get_layer(f"quant_{name}") for name in ("second", "third"))
    assert second.input_quantizers == third.input_quantizers == [None]
    assert input_quantizer(second) is model.get_layer("quant_relu").output_quantizer
    assert input_quantizer(third) is not None


def test_quantizer_inside_of_a_model_that_made_the_tensor():
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(small_models.backbone()(inputs))
    model = calibrated(keras.Model(inputs, layers.Dense(3, name="head")(x)), target="onnxruntime")
    head, relu = model.get_layer("quant_head"), model.get_layer("backbone").get_layer("quant_relu")
    assert head.bias_input == "backbone/quant_relu"
    assert input_quantizer(head) is relu.output_quantizer


@pytest.mark.parametrize("copy", ["loaded", "cloned", "cut"])
def test_neighbours_are_found_in_a_copy_of_the_model(tmp_path, copy):
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(name="relu")(layers.Conv2D(4, 3, name="first")(inputs))
    x = normalization(name="bn")(layers.Conv2D(4, 3, use_bias=False, name="second")(x))
    model = calibrated(keras.Model(inputs, layers.ReLU(name="last")(x)), target="tensorrt")
    if copy == "loaded":
        model.save(tmp_path / "m.keras")
        other = keras.models.load_model(tmp_path / "m.keras")
    elif copy == "cloned":
        other = keras.models.clone_model(model)
    else:
        other = keras.models.clone_model(keras.Model(model.inputs, model.get_layer("quant_second").output))
    second = other.get_layer("quant_second")
    found = following_normalization(second)
    assert found is (None if copy == "cut" else other.get_layer("bn"))
    assert input_quantizer(second) is not None


def test_layer_called_on_tensors_of_several_quantizers_has_none():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    x = layers.Dense(4, name="first")(inputs)
    model = calibrated(keras.Model(inputs, shared(layers.Dense(4, name="second")(shared(x)))), target="onnxruntime")
    assert input_quantizer(model.get_layer("quant_shared")) is None


def test_scale_of_quantizers_is_that_in_the_file():
    model = calibrated(image(layers.Conv2D(4, 3, name="c")), ranges="learned")
    wrapper = model.get_layer("quant_c")
    (quantizer,) = wrapper.input_quantizers
    np.testing.assert_array_equal(ops.convert_to_numpy(quantizer.scale()), quantizer.parameters()[0])
    kernel = ops.convert_to_numpy(wrapper.layer.kernel)
    expected = wrapper.weight_quantizers["kernel"].parameters(kernel)[0]
    np.testing.assert_allclose(ops.convert_to_numpy(wrapper.weight_quantizers["kernel"].scale(kernel)), expected, 1e-6)


def test_scheme_with_one_scale_for_all_channels(own_wrappers):
    from tensorflow_quantization.wrappers.layers import DenseQuantizeWrapper

    inputs = keras.Input((4,))
    wrapper = DenseQuantizeWrapper(layers.Dense(3), weight_scheme=QuantizationScheme())
    wrapper.channel_axis = ()
    model = keras.Model(inputs, wrapper(inputs))
    calibrate(model, np.random.default_rng(0).normal(size=(8, 4)), verbose=0)
    wrapper.layer.bias.assign([0.1, 0.2, 0.3])
    step = ops.convert_to_numpy(
        wrapper.input_quantizers[0].scale() * wrapper.weight_quantizers["kernel"].scale(wrapper.layer.kernel)
    ).item()
    steps = ops.convert_to_numpy(integer_bias(wrapper)) / step
    np.testing.assert_allclose(steps, np.round(steps), atol=WHOLE)


@pytest.mark.parametrize("name", ["functional", "residual", "operations"])
def test_bias_of_a_file_is_computed_in_numpy(tmp_path, name):
    model = calibrated(small_models.BUILDERS[name](), target="tensorrt")
    graph = onnx.load(export_onnx(model, tmp_path / "m.onnx")).graph
    written = {numpy_helper.to_array(i).tobytes() for i in graph.initializer}
    wrappers = [layer for layer in model.layers if getattr(layer, "kernels", None) and not layer.normalization]
    assert wrappers
    for wrapper in wrappers:
        bias = integer_bias(wrapper, np)
        assert isinstance(bias, np.ndarray) and bias.dtype == np.float32
        assert bias.tobytes() in written
        np.testing.assert_allclose(bias, ops.convert_to_numpy(integer_bias(wrapper)), rtol=1e-6)
