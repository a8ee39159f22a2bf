import itertools
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import small_models
from keras import layers
from litert_files import assert_agrees, functional, kinds, quantized

from tensorflow_quantization import QuantizationSpec, calibrate, post_training_quantize, quantize_model
from tensorflow_quantization.export import ExportError
from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.export.verification.litert import run_file
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.targets import BlockRule
from tensorflow_quantization.targets.litert import LITERT

TESTS = Path(__file__).parents[2]
#: `quantize_model` itself refuses other than 8 bits for the target "litert".
ANY_BITS = replace(LITERT, bits=None)


@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_file_is_integer_and_agrees(tmp_path, name):
    model = quantized(small_models.BUILDERS[name]())
    found = assert_agrees(model, tmp_path / "m.tflite")
    assert found.count("QUANTIZE") == len(model.inputs)
    assert found.count("DEQUANTIZE") == len(model.outputs)


def test_outputs_agree(tmp_path, cnn):
    model = quantized(cnn)
    x = small_models.data_for(model)
    path = export_litert(model, tmp_path / "m.tflite")
    found = run_file(path.read_bytes(), LayerGraph.trace(model), [x])
    step = model.get_layer("quant_dense").output_quantizer.parameters()[0]
    np.testing.assert_allclose(found["output_0"], model.predict(x, verbose=0), atol=1.01 * step)


LAYERS = {
    "grouped": lambda: layers.Conv2D(6, 3, groups=3, padding="same", strides=2),
    "dilated": lambda: layers.Conv2D(4, 3, dilation_rate=2),
    "dilated depthwise": lambda: layers.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
    "dilated grouped": lambda: layers.Conv2D(6, 3, groups=3, dilation_rate=2),
    "without bias": lambda: layers.Conv2D(4, 3, use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same"),
    "depthwise with multiplier": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
    "separable": lambda: layers.SeparableConv2D(4, 3, padding="same", strides=2),
    "dilated separable": lambda: layers.SeparableConv2D(4, 3, dilation_rate=2, depth_multiplier=2, use_bias=False),
    "transposed": lambda: layers.Conv2DTranspose(4, 3, strides=2),
    "transposed sequence": lambda: layers.Conv1DTranspose(4, 3, strides=2),
    "sequence": lambda: layers.Conv1D(4, 3),
    "dilated sequence": lambda: layers.Conv1D(4, 3, dilation_rate=2, padding="same"),
    "causal sequence": lambda: layers.Conv1D(4, 3, padding="causal", use_bias=False),
    "dilated causal sequence": lambda: layers.Conv1D(4, 2, padding="causal", dilation_rate=3),
    "dilated depthwise sequence": lambda: layers.DepthwiseConv1D(3, dilation_rate=2),
    "depthwise sequence": lambda: layers.DepthwiseConv1D(3, use_bias=False),
    "separable sequence": lambda: layers.SeparableConv1D(4, 3, strides=2, use_bias=False),
    "dense on images": lambda: layers.Dense(4),
    "dense with activation": lambda: layers.Dense(4, activation="relu"),
}


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [
        *((name, True) for name in LAYERS),
        ("without bias", False),
        ("separable", False),
        ("dense with activation", False),
    ],
)
def test_kernels(tmp_path, name, batch_norm):
    activated = name == "dense with activation"
    steps = [LAYERS[name]()] + [layers.BatchNormalization()] * batch_norm + [layers.ReLU()] * (not activated)
    shape = (8, 8, 6) if "grouped" in name else (9, 3) if "sequence" in name else (8, 8, 3)
    model = functional(*steps, shape=shape)
    for variable in model.weights:
        if variable.path.endswith("gamma"):  # negative ones turn the signs of integers
            variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    found = assert_agrees(quantized(model), tmp_path / "m.tflite")
    assert not {"ADD", "MUL", "RELU"} & set(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.BatchNormalization, (8, 8, 3)),
        (lambda: keras.Sequential([layers.BatchNormalization(), layers.ReLU()]), (8, 8, 3)),
        (layers.BatchNormalization, (5, 3)),
        (layers.BatchNormalization, (3,)),
        (lambda: layers.Rescaling(1 / 255, offset=-0.5), (8, 8, 3)),
        (lambda: layers.Rescaling([0.5, 1.0, 2.0]), (8, 8, 3)),
        (lambda: layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]), (8, 8, 3)),
        (lambda: lambda x: x * np.float32([1.0, 0.01, -0.1]), (8, 8, 3)),
        (lambda: lambda x: keras.ops.subtract(np.float32([1.0, 0.01, 3.0]), x), (8, 8, 3)),
        (lambda: lambda x: x + np.float32([1.0, 0.01, 3.0]), (8, 8, 3)),
    ],
)
def test_scaled_channels_are_a_convolution_of_one_pixel(tmp_path, layer, shape):
    model = quantized(functional(layer(), shape=shape))
    assert "DEPTHWISE_CONV_2D" in assert_agrees(model, tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("last", [lambda: layers.Conv2D(4, 3), layers.BatchNormalization])
def test_preprocessing_in_several_layers_is_one_convolution(tmp_path, last):
    steps = [
        layers.Rescaling(1 / 255),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
        layers.Rescaling(2.0, offset=-1.0),
    ]
    found = assert_agrees(quantized(functional(*steps, last(), shape=(8, 8, 3))), tmp_path / "m.tflite")
    assert found.count("DEPTHWISE_CONV_2D") == 1


def test_preprocessing_by_one_factor_is_a_product(tmp_path):
    steps = [layers.Rescaling(1 / 255), layers.Normalization(mean=0.0, variance=1.0)]
    found = assert_agrees(quantized(functional(*steps, layers.Conv2D(4, 3), shape=(8, 8, 3))), tmp_path / "m.tflite")
    assert found.count("MUL") == 1 and "DEPTHWISE_CONV_2D" not in found


def test_preprocessing_that_two_layers_read_is_a_convolution_each(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255, offset=-0.5)(inputs)
    parts = [layers.Conv2D(4, 3, padding="same")(x), layers.Normalization(mean=0.1, variance=2.0)(x)]
    model = keras.Model(inputs, layers.Concatenate()(parts))
    assert assert_agrees(quantized(model), tmp_path / "m.tflite").count("DEPTHWISE_CONV_2D") >= 2


class Scaled(layers.Layer):
    """A layer of the user's, as ConvNeXt has it, with factors of very different sizes."""

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=(3,))

    def call(self, x):
        return 2.0 - x * self.gamma


def test_bias_that_is_the_same_in_all_channels(tmp_path):
    layer = layers.Conv2D(3, 1, bias_initializer=keras.initializers.Constant(-2.0))
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layers.DepthwiseConv2D(1)(layer(inputs)))
    layer.kernel.assign(layer.kernel * np.float32([1.0, 0.01, 0.001]))
    assert_agrees(quantized(model), tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [partial(layers.Conv2D, 4, 3), partial(layers.Dense, 4), layers.BatchNormalization])
def test_quantized_output_in_front_of_a_relu_is_kept(tmp_path, kernel):
    spec = QuantizationSpec()
    spec.add("kernel", quantize_output=True)
    model = functional(layers.MaxPooling2D(1), kernel(name="kernel"), layers.ReLU())
    assert_agrees(quantized(model, quantization_spec=spec), tmp_path / "m.tflite")


def test_quantized_output_that_only_equal_relus_read_is_kept(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    parts = [layers.Conv2D(4, 1)(layers.ReLU()(x)) for _ in range(2)]
    model = small_models.randomize(keras.Model(inputs, layers.Add()(parts)))
    assert_agrees(quantized(model), tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [partial(layers.Dense, 4), partial(layers.Conv2D, 4, 1)])
@pytest.mark.parametrize("join", [lambda x: x + layers.ReLU()(x), lambda x: [x, layers.ReLU(6.0)(x)]])
def test_quantized_output_that_a_relu_and_others_read_is_kept(tmp_path, kernel, join):
    assert_agrees(quantized(functional(layers.MaxPooling2D(1), kernel(), join)), tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 3)])
def test_factors_of_ones_own_layer_have_a_scale_each(tmp_path, shape):
    model = functional(layers.Dense(3), Scaled(), layers.ReLU(), shape=shape)
    model.layers[2].gamma.assign([100.0, 0.01, -0.1])
    model.layers[1].bias.assign([0.0, 3.0, 3.0])
    model.layers[1].kernel.assign(model.layers[1].kernel * np.float32([0.0001, 1, 1]))
    assert "DEPTHWISE_CONV_2D" in assert_agrees(quantized(model), tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.parametrize(
    "activation", ["gelu", "hard_silu", "leaky_relu", "relu6", "sigmoid", "silu", "softmax", "tanh"]
)
def test_activations(tmp_path, activation):
    model = quantized(functional(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Activation(activation)))
    assert_agrees(model, tmp_path / "m.tflite")


def test_activation_with_weights(tmp_path):
    model = functional(layers.Conv2D(4, 3), layers.PReLU(shared_axes=[1, 2]))
    assert "PRELU" in assert_agrees(quantized(model), tmp_path / "m.tflite")


def test_squeeze_and_excite(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="swish")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="swish")(gate))
    model = quantized(small_models.randomize(keras.Model(inputs, layers.Multiply()([x, gate]))))
    found = assert_agrees(model, tmp_path / "m.tflite")
    assert found.count("QUANTIZE") == 1


def test_parts_of_a_concatenation_that_others_read_too(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    pooled = layers.MaxPooling2D(2)(x)
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(pooled)
    joined = layers.Concatenate()([pooled, y])
    z = layers.Conv2D(4, 3, padding="same")(joined)
    outer = layers.Concatenate()([layers.Concatenate()([z, joined]), layers.AveragePooling2D(2, 1, "same")(joined)])
    model = quantized(small_models.randomize(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(outer)))))
    assert_agrees(model, tmp_path / "m.tflite")


POOLINGS = {
    "average": lambda: layers.AveragePooling2D(2),
    "average, same": lambda: layers.AveragePooling2D(3, strides=1, padding="same"),
    "average, sequence": lambda: keras.Sequential([layers.Reshape((64, 3)), layers.AveragePooling1D(2)]),
    "maximum": lambda: layers.MaxPooling2D(2),
    "maximum, sequence": lambda: keras.Sequential([layers.Reshape((64, 3)), layers.MaxPooling1D(2)]),
    "bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "nearest": lambda: layers.UpSampling2D(2),
    "mean": lambda: layers.GlobalAveragePooling2D(),
    "mean of a sequence": lambda: keras.Sequential([layers.Reshape((64, 3)), layers.GlobalAveragePooling1D()]),
}


# The activations take turns.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "activation"), zip(POOLINGS, itertools.cycle([None, "relu", "relu6", "relu"])))
def test_poolings(tmp_path, name, activation):
    steps = [layers.Conv2D(3, 1), POOLINGS[name]()] + [layers.Activation(activation)] * (activation is not None)
    assert_agrees(quantized(functional(*steps)), tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["ema", "last", "learned"])
def test_average_pooling_beside_another_reader_after_training(tmp_path, images, ranges):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    pooled = layers.Conv2D(4, 1)(layers.AveragePooling2D(3, 1, "same")(x))
    joined = layers.Concatenate()([pooled, layers.Conv2D(4, 3, padding="same")(x)])
    x = layers.Dense(5)(layers.Flatten()(layers.AveragePooling2D(2)(joined)))
    model = quantize_model(small_models.randomize(keras.Model(inputs, x)), target="litert", ranges=ranges)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*images, batch_size=4, epochs=2, verbose=0)
    assert_agrees(model, tmp_path / "m.tflite", images[0])


def test_concatenation_of_a_demanded_scale(tmp_path):
    inputs = keras.Input((8,))
    parts = [layers.Dense(4, activation=name)(inputs) for name in ("sigmoid", "relu", "tanh")]
    model = quantized(small_models.randomize(keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(parts)))))
    assert_agrees(model, tmp_path / "m.tflite")


@pytest.mark.parametrize("layer", [layers.SeparableConv2D, layers.Conv2D])
def test_channels_first(tmp_path, layer):
    model = quantized(functional(layer(4, 3, data_format="channels_first"), shape=(3, 8, 8)))
    assert_agrees(model, tmp_path / "m.tflite")


def test_activation_behind_a_concatenation_and_a_pooling(tmp_path):
    inputs = keras.Input((8, 8, 3))
    parts = [layers.Conv2D(4, 3)(inputs), layers.Conv2D(4, 3)(inputs)]
    pooled = layers.ReLU()(layers.AveragePooling2D(2)(layers.ReLU()(layers.Concatenate()(parts))))
    assert_agrees(quantized(small_models.randomize(keras.Model(inputs, pooled))), tmp_path / "m.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_trained_ranges(tmp_path, images, ranges):
    model = quantize_model(small_models.cnn(), target="litert", ranges=ranges)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*images, batch_size=4, verbose=0)
    assert_agrees(model, tmp_path / "m.tflite", images[0])


def test_integers_in_and_out(tmp_path, cnn):
    model = quantized(cnn)
    x = small_models.data_for(model)
    path = export_litert(model, tmp_path / "m.tflite", io_dtype="int8", verify_with=x)
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(kinds(path))


@pytest.mark.parametrize(("io_dtype", "steps"), [("float32", 0.0), ("int8", 0.51)])
def test_an_input_that_is_an_output_is_returned_as_given(tmp_path, io_dtype, steps):
    model = quantized(functional(lambda x: [x, layers.Conv2D(4, 3)(x)]))
    x = small_models.data_for(model)
    calibrate(model, x, method="minmax", verbose=0)  # no value is outside the range
    path = export_litert(model, tmp_path / "m.tflite", io_dtype=io_dtype, verify_with=x)
    assert set(kinds(path)) <= {"QUANTIZE", "MAXIMUM", "CONV_2D", "DEQUANTIZE"}
    step = model.get_layer("quant_image").parameters()[0]
    found = run_file(path.read_bytes(), LayerGraph.trace(model), [x])
    np.testing.assert_allclose(found["output_0"], x, rtol=0, atol=steps * step)


def test_same_weights_give_the_same_file(tmp_path, cnn):
    model = quantized(cnn)
    first = export_litert(model, tmp_path / "a.tflite").read_bytes()
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert export_litert(loaded, tmp_path / "b.tflite").read_bytes() == first


def test_what_stays_float_is_named(tmp_path):
    model = functional(layers.Conv2D(4, 3, name="conv"), layers.LayerNormalization(name="norm"), layers.ReLU())
    with pytest.warns(UserWarning, match=r"compute in floats.* in 'quant_norm'") as found:
        export_litert(quantized(model), tmp_path / "m.tflite")
    assert {w.filename for w in found if "compute in floats" in str(w.message)} == {__file__}


def test_switched_off_layer_stays_float(tmp_path, cnn):
    spec = QuantizationSpec()
    spec.add("dense", quantize_input=False, quantize_weight=False)
    with pytest.warns(UserWarning, match="FULLY_CONNECTED in 'dense'"):
        export_litert(quantized(cnn, quantization_spec=spec), tmp_path / "m.tflite")


def test_ranges_without_data_are_named(tmp_path, cnn):
    with pytest.warns(UserWarning, match="never saw data"):
        export_litert(quantize_model(cnn, target="litert"), tmp_path / "m.tflite")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small_models.cnn(), 'no quantizers.*target="litert"'),
        (lambda: quantize_model(small_models.cnn()), "quantized for target 'default'"),
        (lambda: quantize_model(small_models.cnn(), target="openvino"), "quantized for target 'openvino'"),
        (lambda: quantize_model(small_models.cnn(), target=ANY_BITS, weight_bits=4), "conv: 4 bits"),
        (lambda: quantize_model(small_models.cnn(), target=ANY_BITS, input_bits=6), "quant_relu: 6 bits"),
    ],
)
def test_unsuitable_models_are_refused(tmp_path, make, message):
    with pytest.raises(ExportError, match=f"(?s){message}"):
        export_litert(make(), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_learned_steps_of_weights_are_refused(tmp_path, cnn):
    with pytest.raises(ValueError, match="Target 'litert' has no learned steps of weights"):
        quantize_model(cnn, target="litert", weight_ranges="learned")
    target = replace(LITERT, name="other", learned_weights=True)
    model = quantize_model(cnn, target=target, weight_ranges="learned")
    with pytest.raises(ExportError, match="kernel with a learned step"):
        export_litert(calibrate(model, small_models.data_for(cnn), verbose=0), tmp_path / "m.tflite")


def test_half_precision_is_refused(tmp_path):
    model = functional(layers.Conv2D(4, 3, dtype="mixed_float16", name="conv"))
    message = "Layer 'conv' computes in float16, and LiteRT quantizes float32 only"
    with pytest.raises(ValueError, match=message):
        quantize_model(model, target="litert")
    with pytest.raises(ValueError, match=message):
        post_training_quantize(model, np.zeros((1, 8, 8, 3)), target="litert", verbose=0)
    of_a_custom_target = quantize_model(model, target=replace(LITERT, name="other", float32_only=None))
    with pytest.raises(ExportError, match=message):
        export_litert(calibrate(of_a_custom_target, small_models.data_for(model), verbose=0), tmp_path / "m.tflite")


def test_outputs_have_their_keys(tmp_path):
    model = quantized(small_models.dict_in_and_out())
    x = small_models.data_for(model)
    data = export_litert(model, tmp_path / "m.tflite", verify_with=x).read_bytes()
    found = run_file(data, LayerGraph.trace(model), keras.tree.flatten(x))
    assert {name: y.shape for name, y in found.items()} == {"class": (8, 3), "box": (8, 2)}


def test_input_of_half_precision_is_refused():
    inputs = keras.Input((8, 8, 3), dtype="float16", name="image")
    with pytest.raises(ValueError, match="Input 'image' is float16"):
        quantized(keras.Model(inputs, layers.Conv2D(4, 3)(inputs)))


def test_other_backends_are_refused(tmp_path, cnn, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ExportError, match="KERAS_BACKEND=tensorflow"):
        export_litert(quantize_model(cnn, target="litert"), tmp_path / "m.tflite")


@pytest.mark.parametrize(
    ("path", "error"), [("", IsADirectoryError), ("nowhere/m.tflite", FileNotFoundError)], ids=["directory", "nowhere"]
)
def test_bad_paths(tmp_path, cnn, path, error):
    with pytest.raises(error):
        export_litert(quantize_model(cnn, target="litert"), tmp_path / path)


@pytest.mark.parametrize("name", ["m", "m.onnx"])
def test_a_name_without_the_ending_is_an_error(tmp_path, cnn, name):
    with pytest.raises(ExportError, match=r"does not end in \.tflite.*pass .*m\.tflite\."):
        export_litert(quantize_model(cnn, target="litert"), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_unknown_io_dtype(tmp_path, cnn):
    with pytest.raises(ExportError, match="Did you mean 'int8'"):
        export_litert(cnn, tmp_path / "m.tflite", io_dtype="uint8")


def test_no_keras_model(tmp_path):
    with pytest.raises(TypeError, match="Expected a keras"):
        export_litert(object(), tmp_path / "m.tflite")


#: Says how many bytes a weight an export adds to the most memory that the process has had, the first export left out.
MEMORY = """
import resource, sys
import keras, numpy as np
from tensorflow_quantization import calibrate, export_litert, quantize_model

def export(units, depth):
    model = keras.Sequential([keras.Input((units,)), *(keras.layers.Dense(units) for _ in range(depth))])
    x = np.random.default_rng(0).normal(size=(2, units)).astype("float32")
    quantized = calibrate(quantize_model(model, target="litert"), x, verbose=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    export_litert(quantized, sys.argv[1])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) * 1024 / model.count_params()

export(8, 2)
print(export(1024, 16))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, resource counts in other units or is missing")
def test_weights_are_copied_a_few_times_only(tmp_path):
    path = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "m.tflite")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    # 20 as measured; with the weights as constants of the function it was 90 to 110.
    assert float(run.stdout.split()[-1]) < 40


def test_weights_in_blocks_are_refused_with_their_layers(tmp_path):
    target = replace(LITERT, name="own", blocks=BlockRule())
    inputs = keras.Input((32,))
    model = keras.Model(inputs, layers.Dense(4, name="second")(layers.Dense(8, name="first")(inputs)))
    spec = QuantizationSpec()
    spec.add("first", weight_bits=8, block_size=32)
    made = quantize_model(model, target=target, quantization_spec=spec)
    with pytest.raises(ExportError, match=r"quant_first: kernel in blocks\n.*without block_size"):
        export_litert(made, tmp_path / "m.tflite")
