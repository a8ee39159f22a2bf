"""`compare` and `sensitivity`: which samples they use, and what the advice is on the command line."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from quantize_jobs import quantized as quantize

from tensorflow_quantization import calibrate, export_onnx, quantize_model
from tensorflow_quantization_cli import main


@pytest.fixture
def compared(tmp_path, monkeypatch, cnn, images):
    """The current folder, with a float model, a quantized one whose ranges clip, and samples."""
    monkeypatch.chdir(tmp_path)
    cnn.save("float.keras")
    quantized = calibrate(quantize_model(cnn, target="onnxruntime"), 0.3 * images[0], verbose=0)
    quantized.save("quantized.keras")
    np.save("images.npy", images[0])
    return quantized


def test_advice_names_the_options_of_the_command(compared, capsys):
    assert main(["compare", "float.keras", "quantized.keras", "images.npy"]) == 0
    said = capsys.readouterr().out
    assert "[clipped]" in said and "With the command `quantize`: " in said and "--method minmax" in said
    assert main(["compare", "float.keras", "quantized.keras", "images.npy", "--json"]) == 0
    json.loads(capsys.readouterr().out)


def test_a_file_from_another_calibration_is_refused(compared, cnn, images, capsys):
    export_onnx(calibrate(quantize_model(cnn, target="onnxruntime"), images[0], verbose=0), "model.onnx")
    assert main(["compare", "float.keras", "quantized.keras", "images.npy", "--file", "model.onnx"]) == 2
    assert "model.onnx was not written from 'cnn' as it is now" in capsys.readouterr().err


def test_a_limit_of_a_figure_that_cannot_be_had_is_not_met(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, keras.ops.sign(keras.ops.abs(layers.Dense(3)(inputs)) + 1.0))
    model.save("model.keras")
    np.save("data.npy", x := np.random.default_rng(0).normal(size=(40, 4)).astype("float32"))
    calibrate(quantize_model(model), x, verbose=0).save("quantized.keras")
    for arguments in (
        ["sensitivity", "model.keras", "--data", "data.npy"],
        ["compare", "model.keras", "quantized.keras", "data.npy"],
    ):
        assert main(arguments) == 0
        capsys.readouterr()
        assert main([*arguments, "--min-snr", "20"]) == 1
        assert "could not be had, so the limit of 20 dB is not met" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "sensitivity", "quantize"])
def test_a_negative_seed_is_named(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([command, "--seed", "-1"])
    assert "argument --seed: A seed is a whole number from 0" in capsys.readouterr().err


def test_sensitivity_uses_all_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((4,), name="x")
    keras.Model(inputs, layers.Dense(3)(inputs)).save("model.keras")
    np.save("data.npy", np.random.default_rng(0).normal(size=(40, 4)).astype("float32"))
    for arguments, count in (([], 40), (["--samples", "20"], 20)):
        assert main(["sensitivity", "model.keras", "--data", "data.npy", "--json", *arguments]) == 0
        assert json.loads(capsys.readouterr().out)["samples"] == count
    with pytest.raises(SystemExit, match="2"):
        main(["sensitivity", "model.keras", "--data", "data.npy", "--samples", "300"])
    assert "--samples is at most 256" in capsys.readouterr().err


def test_compare_takes_samples_at_random_and_gives_the_figure_of_quantize(folder, capsys):
    assert quantize("--keep", "kept", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    pair = ["compare", "kept/float.keras", "kept/quantized.keras"]
    assert main([*pair, "kept/samples.npz", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == said["samples"]
    assert found["output_snr"] == pytest.approx(said["snr"], abs=0.1)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype("float32")
    np.save("sorted.npy", np.concatenate([images, 20 * images]))
    figures = []
    for options in ([], ["--samples", "20"], ["--samples", "20", "--seed", "1"]):
        assert main([*pair, "sorted.npy", "--json", *options]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert [one["samples"] for one in figures] == [80, 20, 20]
    assert all(one["output_snr"] < 10 for one in figures)  # the images of the second half are clipped
    assert figures[1]["output_snr"] != figures[2]["output_snr"]


def test_compare_says_first_that_two_models_do_not_belong_together(folder, capsys):
    assert quantize("--keep", "kept") == 0
    inputs = keras.Input((4, 4, 1))
    keras.Model(inputs, layers.Dense(5)(layers.Flatten()(inputs)), name="gray").save("gray.keras")
    capsys.readouterr()
    assert main(["compare", "gray.keras", "kept/quantized.keras", "images"]) == 2
    assert "was not made from 'gray': its inputs have the shapes" in capsys.readouterr().err
