"""Arguments of `quantize`: what is wrong is said before anything is loaded."""

import argparse

import pytest

from tensorflow_quantization_cli import main
from tensorflow_quantization_cli.arguments import PATHS, several_bits
from tensorflow_quantization_cli.parser import COMMANDS, make_parser


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "There is no folder or file nowhere. Pass a folder of images"),
        (["--data", "empty"], "The folder empty holds no images"),
        (["--data", "model.keras"], "Data is a folder of images, or an .npy or .npz file, got the file model.keras."),
        (["--data", "images/dogs/0.jpg"], "Pass its folder, images/dogs."),
        (["--data", "data.tfrecord-00000-of-00010"], "decode some hundred, and save them with np.savez"),
        (["--data", "records"], "decode some hundred"),
        (["-o", "empty.onnx", "--force"], "empty.onnx is a directory. Pass the name of a file."),
        (["-o", "."], ". is a directory. Pass the name of a file."),
        (["-o", "/"], "/ is a directory. Pass the name of a file."),
        (["-o", "a" * 300], "cannot be looked up: File name too long."),
        (["--keep", "old.onnx/kept"], "old.onnx is a file. Pass the name of a folder to --keep."),
        (["--html", "page"], "page does not end in .html, which a browser opens. Pass page.html."),
        (["--html", "old.html"], "old.html exists already. Pass --force"),
        (["--html", "nowhere/page.html"], "The directory nowhere does not exist"),
        (["-o", "model.tflite", "--target", "openvino"], "model.tflite does not end in .onnx, which openvino reads."),
        (["-o", "model.onnx", "--target", "litert"], "Pass model.tflite."),
        (["-o", "model.txt"], "Pass model.onnx."),
        (["-o", "old.onnx"], "old.onnx exists already. Pass --force"),
        (["-o", "nowhere/model.onnx"], "The directory nowhere does not exist"),
        (["-o", "model.tflite", "--weight-bits", "4"], "LiteRT computes in 8 bits"),
        (["-o", "model.tflite", "--activation-bits", "4"], "LiteRT computes in 8 or 16 bits"),
        (["-o", "model.onnx", "--activation-bits", "16"], "--activation-bits 16 is for --target litert"),
        (["--block-size", "33"], "A block size is a power of two of at least 16, such as 32, got 33."),
        (["--block-size", "8"], "at least 16, such as 32, got 8."),
        (["--block-size", "16", "--weight-bits", "5"], "weights in blocks have 4 or 8 bits for onnxruntime"),
        (["--block-size", "16", "--weight-bits", "8", "--target", "tensorrt"], "have 4 bits for tensorrt"),
        (["--weight-bits", "16"], "from 2 to 8, got 16"),
        (["--samples", "1000"], "at most 256"),
        (["--seed", "-1"], "argument --seed: A seed is a whole number from 0 to 4294967295, got -1."),
        (["--min-integer-share", "2"], "A share is from 0 to 1, got 2. Pass 0.02 for 2 %."),
        (["--min-integer-share", "-0.5"], "A share is from 0 to 1, got -0.5."),
        (["--size", "8y8"], "224x224, got 8y8"),
        (["--scale", "1/0"], "such as 1/255: 1/0"),
        (["--std", "1,0,1"], "it cannot be 0"),
        (["--scale", "0"], "all samples are equal"),
        (["--preprocess", "tf", "--scale", "2"], "leave out --scale"),
        (["--target", "tflite"], "Did you mean 'litert'?"),
        (["--wieght-bits", "4"], "Did you mean '--weight-bits'"),
    ],
)
def test_wrong_arguments_are_said_before_the_package_is_imported(folder, monkeypatch, capsys, arguments, message):
    (folder / "old.onnx").touch()
    for name in ("old.html", "data.tfrecord-00000-of-00010"):
        (folder / name).touch()
    for name in ("empty", "empty.onnx", "records"):
        (folder / name).mkdir()
    (folder / "records" / "data.tfrecord").touch()
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr("tensorflow_quantization_cli.start.package", lambda: pytest.fail("the package was imported"))
    with pytest.raises(SystemExit, match="2"):
        main(["quantize", "model.keras", "--data", "images", "-o", "model.onnx", *arguments])
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_no_path_may_be_empty(name):
    (commands,) = make_parser()._subparsers._group_actions
    for action in commands.choices[name]._actions:
        if action.dest in PATHS:
            with pytest.raises(argparse.ArgumentTypeError, match="The path is empty"):
                action.type("")


def test_several_bits_are_between_single_commas():
    assert several_bits("4,8") == [4, 8]
    with pytest.raises(argparse.ArgumentTypeError, match="between single commas, such as 4,8, got 4,,8"):
        several_bits("4,,8")
