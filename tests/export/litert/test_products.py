"""EinsumDense as one product with a matrix, whose integers LiteRT multiplies."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from litert_files import kinds, quantized
from small_models import randomize

from tensorflow_quantization import describe
from tensorflow_quantization.export.litert import export_litert


@st.composite
def equations(draw):
    """An equation "a...,...->...", the shape of the input, of the output, and the axes of the bias."""
    free = draw(st.sampled_from(["a", "ab", "abc"]))
    summed, made = draw(st.sampled_from(["x", "xy"])), draw(st.sampled_from(["p", "pq"]))
    sizes = {axis: draw(st.integers(2, 4)) for axis in free + summed + made}
    inputs = free[0] + "".join(draw(st.permutations(free[1:] + summed)))
    kernel = "".join(draw(st.permutations(summed + made)))
    output = free[0] + "".join(draw(st.permutations(free[1:] + made)))
    # A vector along an axis before the last stays in float, see `as_matrix`.
    bias = draw(
        st.sampled_from([None, *([made] if len(made) > 1 else []), *([output[-1]] if output[-1] in made else [])])
    )
    return f"{inputs},{kernel}->{output}", [sizes[a] for a in inputs[1:]], [sizes[a] for a in output[1:]], bias


@settings(max_examples=25)
@given(equations(), st.sampled_from([None, "relu", "gelu"]))
def test_products_of_any_arrangement_agree(tmp_path_factory, equation, activation):
    text, shape, output, bias = equation
    inputs = keras.Input(shape)
    layer = layers.EinsumDense(text, output, bias_axes=bias, activation=activation, name="einsum")
    x = layers.Reshape((math.prod(output),))(layer(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    data = np.random.default_rng(0).normal(size=(16, *shape)).astype("float32")
    path = tmp_path_factory.mktemp("einsum") / "m.tflite"
    export_litert(quantized(model, data), path, verify_with=data)
    assert kinds(path).count("FULLY_CONNECTED") == 2


@pytest.mark.parametrize("heads", [5, 1])
@pytest.mark.parametrize("bias", ["e", "de"])
def test_a_bias_of_some_channels(tmp_path, bias, heads):
    inputs = keras.Input((6, 4))
    x = layers.EinsumDense("abc,cde->abde", (6, heads, 3), bias_axes=bias)(inputs)
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    data = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    export_litert(quantized(model, data), tmp_path / "m.tflite", verify_with=data)
    assert kinds(tmp_path / "m.tflite").count("FULLY_CONNECTED") == 2


@pytest.mark.filterwarnings("ignore:.*compute in floats")
@pytest.mark.parametrize(("equation", "bias"), [("abc,cd->adb", "d"), ("abc,cde->abde", "d")])
def test_a_bias_that_keras_may_add_along_another_axis(tmp_path, equation, bias):
    inputs = keras.Input((5, 4))
    layer = layers.EinsumDense(equation, (5, 5) if len(equation) == 11 else (5, 3, 3), bias_axes=bias)
    model = randomize(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layer(inputs)))))
    data = np.random.default_rng(0).normal(size=(16, 5, 4)).astype("float32")
    export_litert(quantized(model, data), tmp_path / "m.tflite", verify_with=data)


def test_steps_of_unknown_number(tmp_path):
    inputs = keras.Input((None, 4))
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")(inputs)
    x = layers.EinsumDense("abde,def->abf", (None, 5), bias_axes="f")(x)
    model = randomize(keras.Model(inputs, x))
    data = np.random.default_rng(0).normal(size=(8, 6, 4)).astype("float32")
    export_litert(quantized(model, data), tmp_path / "m.tflite", verify_with=data)
    assert kinds(tmp_path / "m.tflite").count("FULLY_CONNECTED") == 2


def test_a_normalization_is_folded(tmp_path):
    inputs = keras.Input((6, 4))
    x = layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")(inputs)
    x = layers.EinsumDense("abc,cd->abd", (None, 5))(layers.BatchNormalization()(x))
    model = randomize(keras.Model(inputs, layers.ReLU()(layers.BatchNormalization()(x))))
    data = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")
    export_litert(quantized(model, data), tmp_path / "m.tflite", verify_with=data)
    assert not {"MUL", "DEPTHWISE_CONV_2D"} & set(kinds(tmp_path / "m.tflite"))


@pytest.mark.filterwarnings("ignore:.*compute in floats")
def test_other_equations_stay_in_floats(tmp_path):
    inputs = keras.Input((6, 4))
    x = layers.EinsumDense("abc,bcd->abd", (6, 5), bias_axes="d", name="einsum")(inputs)
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    data = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    model = quantized(model, data)
    assert "kernel" not in str(describe(model)["einsum"].quantizers)
    export_litert(model, tmp_path / "m.tflite", verify_with=data)


def test_sixteen_bits(tmp_path):
    inputs = keras.Input((6, 4))
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")(inputs)
    model = randomize(keras.Model(inputs, layers.EinsumDense("abde,def->abf", (None, 5), bias_axes="f")(x)))
    data = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    export_litert(quantized(model, data, activation_bits=16), tmp_path / "m.tflite", verify_with=data)
    assert kinds(tmp_path / "m.tflite").count("FULLY_CONNECTED") == 2
