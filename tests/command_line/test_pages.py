"""The commands in README and documentation: the parser takes them all, and those of the page on the job run."""

import importlib.util
import os
import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from tensorflow_quantization_cli import main
from tensorflow_quantization_cli.parser import COMMANDS, make_parser, parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text):
    """The arguments of each `tensorflow-quantization ...` at the beginning of a line, without a redirection."""
    lines = re.findall(r"^\s*tensorflow-quantization +(.*?)(?: > .*)?$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with all files that the pages read, empty, and a folder with an image."""
    monkeypatch.chdir(tmp_path)
    for name in ("model", "float", "quantized", "kept/float", "kept/quantized", "shown/float", "shown/quantized"):
        (tmp_path / f"{name}.keras").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.keras").touch()
    for name in (
        "model.onnx",
        "segmentation.onnx",
        "float.onnx",
        "again.onnx",
        "shown.onnx",
        "inputs.npz",
        "kept/samples.npz",
        "shown/samples.npz",
        "images.npy",
    ):
        (tmp_path / name).touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").touch()
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_parser_takes_each_command_of_a_page(page, folder):
    for arguments in commands(page.read_text()):
        # A page may write the file that a later command reads.
        parse([*arguments, "--force"] if "-o" in arguments or arguments[0] == "export" else arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_parser_takes_the_examples_of_a_command(name, folder, capsys):
    with pytest.raises(SystemExit, match="0"):
        make_parser().parse_args([name, "--help"])
    shown = capsys.readouterr().out
    assert "examples:" in shown and "exit status:" in shown
    for arguments in commands(shown):
        parse([*arguments, "--force"] if "-o" in arguments or arguments[0] == "export" else arguments)


def test_the_reference_names_each_command():
    page = (ROOT / "docs" / "api" / "cli.md").read_text()
    assert re.findall(r"^\| `(\w+)", page, re.MULTILINE) == list(COMMANDS)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the page writes a .tflite file")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_commands_of_the_page_on_the_job_run(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    pytest.importorskip("ai_edge_litert")
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x))).save("model.keras")
    rng = np.random.default_rng(0)
    os.mkdir("images")
    for index in range(20):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), "uint8")).save(f"images/{index}.jpg")
    np.savez("inputs.npz", image=rng.integers(0, 256, (20, 16, 16, 3)))
    for arguments in commands((ROOT / "docs" / "command_line.md").read_text()):
        if arguments[0] == "completion" and importlib.util.find_spec("shtab") is None:
            continue
        # Fewer steps than a user would train.
        assert main(["3" if argument == "500" else argument for argument in arguments]) == 0, arguments
