"""`benchmark`: latency of files beside each other."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import export_onnx
from tensorflow_quantization_cli import main

pytest.importorskip("onnxruntime")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The current folder, with a small network in `small.onnx` and a larger one in `large.onnx`."""
    monkeypatch.chdir(tmp_path)
    for name, filters in (("small", 2), ("large", 64)):
        inputs = keras.Input((64, 64, 3), name="image")
        x = layers.Conv2D(filters, 5)(layers.Conv2D(filters, 5)(inputs))
        export_onnx(keras.Model(inputs, x), f"{name}.onnx")
    return tmp_path


def test_the_ratio_is_to_the_first_file(files, capsys):
    assert main(["benchmark", "small.onnx", "large.onnx", "--rounds", "3", "--json"]) == 0
    small, large = json.loads(capsys.readouterr().out)["files"]
    assert small["ratio"] == 1.0 and large["ratio"] > 2.0
    assert small["runtime"] == "onnxruntime"
    assert small["ratio_interval"] is large["ratio_interval"] is None  # of 3 rounds
    assert main(["benchmark", "small.onnx", "large.onnx", "--rounds", "3", "--max-ratio", "1.5"]) == 1
    captured = capsys.readouterr()
    assert "large.onnx takes" in captured.err and "1.00 x" in captured.out
    assert main(["benchmark", "large.onnx", "small.onnx", "--rounds", "3", "--max-ratio", "0.7"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", "small.onnx", "--max-ratio", "0.7"])
    assert "pass at least two" in capsys.readouterr().err


def test_a_ratio_has_an_interval(files, capsys, monkeypatch):
    """The calls are real, and their times given: the second takes 0.9 to 1.4 times as long as the first."""

    def seconds(calls, rounds, lead):
        first, second = calls
        return {first: np.ones(rounds), second: np.linspace(0.9, 1.4, rounds)}

    monkeypatch.setattr("tensorflow_quantization_cli.files.interleaved", seconds)
    arguments = ["benchmark", "small.onnx", "large.onnx", "--rounds", "10"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][1]["ratio_interval"] == pytest.approx(
        [0.9 + 0.5 / 9, 1.4 - 0.5 / 9]
    )
    assert main([*arguments, "--max-ratio", "1.1"]) == 1
    said = capsys.readouterr()
    assert "0.96 to 1.34, no difference measurable" in said.out
    assert "The interval holds the limit, too: pass more --rounds" in said.err
    assert main(["benchmark", "small.onnx", "large.onnx", "--rounds", "5"]) == 0
    assert "unknown: less than 6 rounds" in capsys.readouterr().out


def test_files_run_in_other_runtimes(files, capsys):
    pytest.importorskip("openvino")
    names = ["small.onnx"]
    if keras.backend.backend() == "tensorflow":
        pytest.importorskip("ai_edge_litert")
        inputs = keras.Input((8,), name="x")
        keras.Model(inputs, layers.Dense(4)(inputs)).export("dense.tflite", format="litert", verbose=False)
        names.append("dense.tflite")
    assert main(["benchmark", *names, "--runtime", "openvino", "--batch-size", "2", "--rounds", "2", "--json"]) == 0
    runtimes = [file["runtime"] for file in json.loads(capsys.readouterr().out)["files"]]
    assert runtimes == ["openvino", "litert"][: len(names)]


def test_an_unknown_size_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((None, None, 3), name="image")
    export_onnx(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)), "m.onnx")
    assert main(["benchmark", "m.onnx"]) == 2
    assert "Input 'image' has unknown sizes, 1x?x?x3. Pass --input-shape image:" in capsys.readouterr().err
    assert main(["benchmark", "m.onnx", "--input-shape", "image:1x8x8x3", "--rounds", "2"]) == 0
    assert main(["benchmark", "m.onnx", "--input-shape", "image:1x8x8x4"]) == 2
    assert "does not fit" in capsys.readouterr().err
    assert main(["benchmark", "m.onnx", "--input-shape", "images:1x8x8x3"]) == 2
    assert "No file has the input 'images' of --input-shape. Did you mean 'image'?" in capsys.readouterr().err


def test_files_of_other_kinds_are_named(files, capsys):
    (files / "damaged.onnx").write_bytes(b"no file")
    (files / "damaged.tflite").write_bytes(b"no file")
    for name in ("damaged.onnx", "damaged.tflite"):
        assert main(["benchmark", name]) == 2
        assert name in capsys.readouterr().err
    for arguments, message in ((["m.keras"], "ends in .onnx or .tflite"), (["small.onnx"] * 2, "is given twice")):
        with pytest.raises(SystemExit, match="2"):
            main(["benchmark", *arguments])
        assert message in capsys.readouterr().err
