"""What `quantize` refuses, before any work: models, data and options that do not fit."""

import keras
import numpy as np
import pytest
from keras import layers
from quantize_jobs import quantized

from tensorflow_quantization_cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "9x8"], "--size 9x8 does not fit input 'image' of the model, which is 8x8."),
        (["--mean", "1,2"], "--mean has 2 numbers, and there are 3 channels."),
        (["--mean", "-1,.5"], "--mean has 2 numbers, and there are 3 channels."),
    ],
)
def test_what_does_not_fit_the_model_is_said_before_any_work(folder, capsys, arguments, message):
    assert quantized(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "model.onnx").exists()


def test_all_damaged_images_are_named_at_once(folder, capsys):
    images = sorted((folder / "images").rglob("*.*g"))
    images[3].write_bytes(images[3].read_bytes()[:50])
    assert quantized() == 2
    assert (
        f"1 of 20 images cannot be read. Damaged or no images: {images[3].relative_to(folder)}. Repair or remove them."
        in (capsys.readouterr().err)
    )
    for image in images[3:10]:
        image.write_bytes(b"no image")
    assert quantized() == 2
    said = capsys.readouterr().err
    assert "7 of 20 images" in said and "and 2 more. Repair or remove them." in said
    assert [image for image in images if image.name in said.split("no images: ")[1]] == images[3:8]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((9, 8, 8), "float32"),
            "must hold one array for each input (image (None, 8, 8, 3)), got shapes [(9, 8, 8)].",
        ),
        (np.zeros((9, 4, 8, 3), "float32"), "must hold one array for each input"),
        (np.full((9, 8, 8, 3), np.nan, "float32"), "holds NaN or infinite values for input 'image', first in sample"),
        (np.zeros((0, 8, 8, 3)), "data.npy holds no samples, which are along the first axis: shape (0, 8, 8, 3)."),
        (np.zeros(()), "data.npy holds no samples, which are along the first axis: shape ()."),
        (np.zeros((9, 8, 8, 3), complex), "data.npy holds complex numbers, and inputs are real."),
        (np.array([{}]), "holds Python objects, not numbers, as NumPy stores samples of different shapes"),
    ],
)
def test_wrong_arrays_are_said_before_any_work(folder, capsys, array, message):
    np.save("data.npy", array)
    assert quantized(data="data.npy") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
def test_a_file_of_arrays_that_is_empty_or_cut_off_is_named(folder, capsys, name):
    save = np.save if name == "data.npy" else np.savez
    save(name, np.zeros((9, 8, 8, 3)))
    whole = (folder / name).read_bytes()
    for size, message in ((0, f"{name} is empty: it has no bytes"), (60, name), (5000, name)):
        (folder / name).write_bytes(whole[:size])
        assert quantized(data=name) == 2
        said = capsys.readouterr().err
        assert message in said and (size == 0 or name == "data.npz" or "is cut off" in said)
    np.savez("data.npz")
    assert quantized(data="data.npz") == 2
    assert "data.npz holds no array" in capsys.readouterr().err
    (folder / name).write_text("1.0, 2.0\n3.0, 4.0\n")
    assert quantized(data=name) == 2
    assert f"{name} is not an {name[4:]} file of NumPy" in capsys.readouterr().err


def test_a_quantized_model_and_a_file_of_another_kind_are_named(folder, capsys):
    assert quantized("--keep", "kept ü") == 0
    (folder / "other.keras").write_text("no model")
    for model, message in {
        "kept ü/quantized.keras": "tensorflow-quantization export 'kept ü/quantized.keras' model.onnx\n",
        "other.keras": "is not a .keras file",
    }.items():
        assert main(["quantize", model, "--data", "images", "-o", "new.onnx"]) == 2
        assert message in capsys.readouterr().err
    assert not (folder / "new.onnx").exists()


def of_strings():
    inputs = keras.Input((1,), dtype="string")
    words = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4, name="words")(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Embedding(5, 4)(words))))


def of_logarithms():
    inputs = keras.Input((4,))
    x = layers.Dense(3, activation="relu", kernel_initializer="zeros")(inputs)
    return keras.Model(inputs, keras.ops.log(x))


def in_half_precision():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3, dtype="mixed_float16", name="scores")(inputs))


@pytest.mark.parametrize(
    ("build", "samples", "target", "message"),
    [
        pytest.param(
            of_strings,
            np.array([["a b"]] * 8),
            "onnxruntime",
            "  words (TextVectorization): works on strings or hash tables",
            marks=pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strings are TensorFlow's"),
        ),
        (of_logarithms, np.ones((8, 4), "float32"), "onnxruntime", "NaN or infinite for this data, in output 'log'"),
        (in_half_precision, np.ones((8, 4), "float32"), "litert", "Layer 'scores' computes in float16"),
    ],
)
def test_a_model_that_cannot_be_quantized_is_said_before_any_work(folder, capsys, build, samples, target, message):
    build().save("model.keras")
    np.save("data.npy", samples)
    output = "model.tflite" if target == "litert" else "model.onnx"
    assert main(["quantize", "model.keras", "--data", "data.npy", "--target", target, "-o", output]) == 2
    said = capsys.readouterr().err
    assert message in said and "Quantize for" not in said
    assert main(["sensitivity", "model.keras", "--data", "data.npy", "--target", target]) == 2
    assert message in capsys.readouterr().err
