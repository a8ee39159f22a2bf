"""The script of the model zoo, with a network that trains in seconds."""

import json
import pathlib
import sys

import keras
import numpy as np
import pytest
from keras import applications, layers
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "examples" / "model_zoo"))

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the script reads tf.data")
networks = pytest.importorskip("networks")


def small(weights, input_shape, include_top, pooling):
    assert weights is None and not include_top and pooling == "avg"
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(inputs)
    return keras.Model(inputs, layers.Flatten()(x), name="small")  # a mean learns too slowly for a test


@pytest.fixture
def zoo(monkeypatch, tmp_path, fashion_mnist):
    """Runs the script on images of three kinds of clothes."""
    import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(networks.NETWORKS, "mobilenetv1", networks.Network(small, applications.mobilenet, 28))
    for split, (x, y) in zip(("train", "validation"), fashion_mnist, strict=True):
        for label in (1, 5, 8):
            folder = tmp_path / "images" / split / str(label)
            folder.mkdir(parents=True)
            for index, image in enumerate(x[y == label][:40]):
                Image.fromarray(np.uint8(image[..., 0] * 255)).save(folder / f"{index}.png")

    def start(*arguments):
        command = ["run.py", "mobilenetv1", "--data", "images", "--weights", "none", "--batch-size", "16"]
        monkeypatch.setattr(sys, "argv", [*command, "--target", "onnxruntime", "--float-epochs", "4", *arguments])
        run.main()

    start.module = run
    return start


@pytest.mark.slow
def test_a_network_goes_from_float_to_a_measured_file_and_nothing_is_made_twice(zoo, capsys):
    zoo()
    folder = pathlib.Path("zoo/mobilenetv1/onnxruntime")
    found = json.loads((folder / "results.json").read_text())
    assert list(found) == ["float", "ptq", "qat", "file"]
    assert min(found.values()) > 0.6 and abs(found["file"] - found["qat"]) < 0.02
    assert "| file, in its runtime | " in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {path.name for path in before} >= {"float.keras", "ptq.keras", "qat.keras", "qat.onnx"}
    zoo()
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_from_its_last_epoch(zoo, monkeypatch, capsys):
    class StopError(Exception):
        pass

    def stop(self, epoch, logs=None):
        after(self, epoch, logs)
        raise StopError

    after = keras.callbacks.BackupAndRestore.on_epoch_end
    with monkeypatch.context() as patched, pytest.raises(StopError):
        patched.setattr(keras.callbacks.BackupAndRestore, "on_epoch_end", stop)
        zoo("--epochs", "3")
    assert not pathlib.Path("zoo/mobilenetv1/onnxruntime/qat.keras").exists()
    capsys.readouterr()
    zoo("--epochs", "3")
    said = capsys.readouterr().out
    assert "Epoch 1/3" not in said and "Epoch 2/3" in said


def test_a_missing_folder_is_named(zoo, capsys):
    with pytest.raises(SystemExit):
        zoo("--data", "elsewhere")
    assert "elsewhere has no folder 'train' with a folder of images for each class." in capsys.readouterr().err
