import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from litert_files import functional, kinds, quantized

from tensorflow_quantization import (
    QuantizationSpec,
    calibrate,
    compare,
    describe,
    export_onnx,
    post_training_quantize,
    quantize_model,
)
from tensorflow_quantization.export import ExportError
from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.export.litert.file import operators
from tensorflow_quantization.export.verification.litert import run_file
from tensorflow_quantization.model.graph import LayerGraph


def wide(model, x=None, **kwargs):
    return quantized(model, x, activation_bits=16, **kwargs)


def decibels(expected, got):
    return 10 * np.log10(np.mean(expected**2) / np.mean((expected - got) ** 2))


def conv(x, filters=4, **kwargs):
    return layers.Conv2D(filters, 3, padding="same", **kwargs)(x)


def of_two(function):
    return lambda x: function(conv(x), conv(x, activation="relu"))


def pooled(x):
    return layers.GlobalAveragePooling2D(keepdims=True)(conv(x))


#: What is between a convolution and the next.
IN_INTEGERS = {
    "batch normalization": lambda x: layers.BatchNormalization()(x),
    "sum": of_two(lambda a, b: a + b),
    "difference": of_two(lambda a, b: layers.Subtract()([a, b])),
    "product": of_two(lambda a, b: a * b),
    "factors of channels": lambda x: layers.Multiply()([conv(x), pooled(x)]),
    "maximum": of_two(lambda a, b: layers.Maximum()([a, b])),
    "clip": lambda x: ops.clip(conv(x), -1, 1),
    "negative": lambda x: -conv(x),
    "constant": lambda x: conv(x) / 3.0 + np.float32([1, 2, 3, 4]),
    "max pooling": lambda x: layers.MaxPooling2D(2)(conv(x)),
    "average pooling": lambda x: layers.AveragePooling2D(2)(conv(x)),
    "mean": lambda x: ops.mean(conv(x), axis=1, keepdims=True),
    "relu6": lambda x: layers.ReLU(6.0)(layers.DepthwiseConv2D(3)(x)),
    "leaky relu": lambda x: layers.LeakyReLU()(conv(x)),
    "transposed": lambda x: layers.Conv2DTranspose(4, 3, strides=2)(x),
    "dilated": lambda x: layers.Conv2D(4, 3, dilation_rate=2)(x),
    "separable": lambda x: layers.SeparableConv2D(4, 3)(x),
    "moves": lambda x: ops.flip(layers.ZeroPadding2D()(layers.Permute((2, 1, 3))(conv(x))), 1),
    "linear": lambda x: layers.Activation("linear")(conv(x)),
    "halves": lambda x: ops.split(conv(x), 2, axis=-1)[0],
    "concatenation": of_two(lambda a, b: layers.Concatenate()([a, b, a])),
    "concatenation of rows": of_two(lambda a, b: layers.Concatenate(axis=1)([a, b])),
    "concatenation of floats": lambda x: layers.Concatenate()([layers.Concatenate()([conv(x), conv(x)]), conv(x)]),
}
IN_FLOATS = {
    "sigmoid": lambda x: conv(x, activation="sigmoid"),
    "silu": lambda x: conv(x, activation="silu"),
    "gelu": lambda x: conv(x, activation="gelu"),
    "softmax": lambda x: layers.Softmax()(conv(x)),
    "prelu": lambda x: layers.PReLU()(conv(x)),
    "average": of_two(lambda a, b: layers.Average()([a, b])),
    "broadcast sum": lambda x: layers.Add()([conv(x), pooled(x)]),
    "selection": of_two(lambda a, b: ops.where(a > 0, a, b)),
    "upsampling": lambda x: layers.UpSampling2D((2, 3))(conv(x)),
    "bilinear upsampling": lambda x: layers.UpSampling2D(3, interpolation="bilinear")(conv(x)),
    "threshold": lambda x: layers.ReLU(threshold=0.5)(conv(x)),
    "resized": lambda x: layers.Resizing(12, 12)(conv(x)),
    "repeated": lambda x: ops.repeat(ops.tile(conv(x), (1, 2, 1, 1)), 2, axis=2),
    "layer normalization": lambda x: layers.LayerNormalization()(conv(x)),
    "own code": lambda x: layers.Lambda(lambda t: ops.tanh(t) * 2)(conv(x)),
    "recurrent": lambda x: ops.expand_dims(layers.LSTM(4, return_sequences=True)(layers.Reshape((8, 32))(x)), 1),
}


@pytest.mark.parametrize("name", IN_INTEGERS)
def test_the_file_is_integer_and_agrees(tmp_path, name):
    model = wide(functional(conv, IN_INTEGERS[name], conv))
    path = export_litert(model, tmp_path / "m.tflite", verify_with=small_models.data_for(model))
    assert "CONV_2D" in kinds(path)  # all in integers
    x = small_models.data_for(model)
    found = run_file(path.read_bytes(), LayerGraph.trace(model), [x])["output_0"]
    assert decibels(model.predict(x, verbose=0), found) > 75


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", IN_FLOATS)
def test_what_has_no_kernel_is_computed_in_float(tmp_path, name):
    model = wide(functional(conv, IN_FLOATS[name], conv))
    path = export_litert(model, tmp_path / "m.tflite", verify_with=small_models.data_for(model))
    rows = operators(path.read_bytes())
    assert any(floats for _, _, floats in rows)
    assert not [floats for kind, _, floats in rows if kind == "CONV_2D"][-1]


def upsampled():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="first")(inputs)
    return keras.Model(inputs, layers.Conv2D(2, 3)(layers.UpSampling2D(name="between")(x)))


def resized():
    inputs = keras.Input((8, 8, 3))
    x = layers.Resizing(12, 12, interpolation="nearest", name="between")(layers.Conv2D(4, 3, name="first")(inputs))
    return keras.Model(inputs, layers.Conv2D(2, 3)(x))


def joined():
    """A concatenation of two sequences of unknown length."""
    inputs = keras.Input((None, 3))
    parts = [layers.Conv1D(4, 3, padding="same", name=name)(inputs) for name in ("first", "second")]
    return keras.Model(inputs, layers.Conv1D(2, 3)(layers.Concatenate(axis=1, name="between")(parts)))


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize(
    ("make", "shape", "why"),
    [
        (upsampled, (4, 8, 8, 3), "LiteRT has no exact kernel for 16 bits"),
        (resized, (4, 8, 8, 3), "LiteRT has no exact kernel for 16 bits"),
        (joined, (4, 10, 3), "the size of a part is unknown"),
    ],
)
def test_convolutions_around_a_layer_in_float_are_integer_and_the_layer_has_a_reason(tmp_path, make, shape, why):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    model = wide(make(), x)
    path = export_litert(model, tmp_path / "m.tflite", verify_with=x)
    rows = operators(path.read_bytes())
    assert not [kind for kind, _, floats in rows if floats and kind == "CONV_2D"]
    described = describe(model)
    assert described["first"].reason == "computed in integers"
    assert f"the layer itself is computed in float: {why}" in described["between"].reason


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_small_models(tmp_path, name):
    model = wide(small_models.BUILDERS[name]())
    export_litert(model, tmp_path / "m.tflite", verify_with=small_models.data_for(model))


def test_outputs_are_nearer_to_the_float_model_than_with_8_bits(residual):
    x = small_models.data_for(residual)
    expected = residual.predict(x, verbose=0)
    plain, better = (
        post_training_quantize(residual, x, target="litert", activation_bits=bits, verbose=0) for bits in (8, 16)
    )
    assert decibels(expected, better.predict(x, verbose=0)) > decibels(expected, plain.predict(x, verbose=0)) + 3


def test_inputs_and_outputs_of_integers(tmp_path, cnn):
    model, x = wide(cnn), small_models.data_for(cnn)
    path = export_litert(model, tmp_path / "m.tflite", io_dtype="int16", verify_with=x)
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(kinds(path))
    with pytest.raises(ExportError, match="io_dtype='int8', but the model has activations of int16"):
        export_litert(model, tmp_path / "other.tflite", io_dtype="int8")
    with pytest.raises(ExportError, match="io_dtype='int16', but the model has activations of int8"):
        export_litert(quantized(cnn), tmp_path / "other.tflite", io_dtype="int16")
    assert not (tmp_path / "other.tflite").exists()


@pytest.mark.parametrize("method", ["minmax", "mse", "entropy", "percentile"])
def test_every_method_of_calibration(cnn, method):
    x = small_models.data_for(cnn)
    model = calibrate(quantize_model(cnn, target="litert", activation_bits=16), x, method=method, verbose=0)
    assert decibels(cnn.predict(x, verbose=0), model.predict(x, verbose=0)) > 40


def test_vectors_are_repeated(tmp_path):
    model = wide(functional(layers.Dense(4), layers.RepeatVector(3), layers.Dense(3), shape=(6,)))
    with pytest.warns(UserWarning, match="TILE in 'quant_repeat_vector'|TILE in 'repeat_vector'"):
        export_litert(model, tmp_path / "m.tflite", verify_with=small_models.data_for(model))


@pytest.mark.parametrize("ranges", ["ema", "last"])
def test_it_trains_saves_and_loads(tmp_path, cnn, ranges):
    model, x = wide(cnn, ranges=ranges), small_models.data_for(cnn)
    model.compile("adam", "mse")
    model.fit(x, cnn.predict(x, verbose=0), verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    export_litert(loaded, tmp_path / "m.tflite", verify_with=x)


def test_it_is_described_and_compared(cnn):
    model, x = wide(cnn), small_models.data_for(cnn)
    (output,) = describe(model)["quant_image"].quantizers
    assert (output.bits, output.dtype, str(output)[:13]) == (16, "int16", "output int16 ")
    assert min(layer.snr for layer in compare(cnn, model, x).layers) > 35


def test_onnx_files_need_opset_21(tmp_path, cnn):
    model = wide(cnn)
    export_onnx(model, tmp_path / "m.onnx", verify_with=small_models.data_for(cnn))
    with pytest.raises(ExportError, match="16 bits needs ONNX opset 21 or newer, got opset=17"):
        export_onnx(model, tmp_path / "m.onnx", opset=17)


@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
def test_other_targets_do_not_compute_with_16_bits(cnn, target):
    with pytest.raises(ValueError, match=r"activation_bits=16 needs a runtime .*target='litert', got"):
        quantize_model(cnn, target=target, activation_bits=16)


def test_steps_of_16_bits_are_not_learned(cnn):
    with pytest.raises(ValueError, match="ranges='learned' trains steps of few bits"):
        quantize_model(cnn, target="litert", activation_bits=16, ranges="learned")
    for bits in (12, 16.0):
        with pytest.raises(ValueError, match="2 to 8, or 16 with target='litert', got 1"):
            quantize_model(cnn, target="litert", activation_bits=bits)


def test_16_bits_are_for_a_whole_model(cnn):
    spec = QuantizationSpec()
    with pytest.raises(ValueError, match="activation_bits of 'conv' must be an integer from 2 to 8, got 16"):
        spec.add("conv", activation_bits=16)
    spec.add("conv", activation_bits=8)
    with pytest.raises(ValueError, match="'conv' has activation_bits=8 for layer 'conv', and 16 bits are for all"):
        quantize_model(cnn, target="litert", activation_bits=16, quantization_spec=spec)
    with pytest.raises(ValueError, match="4 bits"):
        quantize_model(cnn, target="litert", activation_bits=16, weight_bits=4)
