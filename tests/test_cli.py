"""The command line, on real files."""

import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
from keras import layers

from tensorflow_quantization import __version__, calibrate, export_onnx, quantize_model
from tensorflow_quantization.export.validation import check_target
from tensorflow_quantization.inspection.checks.check import RULES
from tensorflow_quantization.inspection.runtime.runtime_report import RUNTIMES
from tensorflow_quantization.targets import TARGETS
from tensorflow_quantization_cli import CHECK_TARGETS, EXPORT_TARGETS, REPORT_RUNTIMES, main


@pytest.fixture
def quantized(tmp_path):
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(inputs))))
    data = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    model = calibrate(quantize_model(model, target="onnxruntime"), data, verbose=0)
    model.save(tmp_path / "m.keras")
    export_onnx(model, tmp_path / "m.onnx")
    return tmp_path


def test_check_prints_findings_and_tells_by_the_exit_code(quantized, capsys):
    assert main(["check", str(quantized / "m.onnx")]) == 0
    assert "for onnxruntime: no findings" in capsys.readouterr().out
    assert main(["check", str(quantized / "m.onnx"), "--target", "tensorrt"]) == 1  # TensorRT has no uint8
    assert "uint8" in capsys.readouterr().out.lower()


def test_report_says_what_ran_in_integers(quantized, capsys):
    assert main(["report", str(quantized / "m.onnx")]) == 0
    assert "100" in capsys.readouterr().out


def test_describe_names_the_layers(quantized, capsys):
    assert main(["describe", str(quantized / "m.keras")]) == 0
    assert "conv2d" in capsys.readouterr().out


def test_export_writes_the_same_file_as_the_function(quantized, capsys):
    output = quantized / "again.onnx"
    assert main(["export", str(quantized / "m.keras"), str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert output.read_bytes() == (quantized / "m.onnx").read_bytes()


def test_export_takes_options(quantized):
    output = quantized / "again.onnx"
    options = ["--opset", "21", "--input-layout", "channels_first", "--precision", "float16"]
    assert main(["export", str(quantized / "m.keras"), str(output), *options]) == 0
    proto = onnx.load(output)
    assert proto.opset_import[0].version == 21
    assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim][1:] == [3, 8, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "missing.onnx"], "missing.onnx"),
        (["check", "m.onnx", "--target", "tensortr"], "tensorrt"),
        (["report", "m.onnx", "--runtime", "onnx"], "onnxruntime"),
        (["export", "m.keras", "m2.onnx", "--precision", "float61"], "float16"),
        (["export", "m.keras", "m2.tflite", "--opset", "17"], "--opset"),
        (["export", "missing.keras", "m2.onnx"], "missing.keras"),
        (["export", "m.keras", "m2.txt"], ".onnx or .tflite"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(quantized, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(quantized)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not list(quantized.glob("m2*"))


def test_export_does_not_write_over_the_model(quantized, capsys):
    path = quantized / "m.keras"
    before = path.read_bytes()
    assert main(["export", str(path), str(path)]) == 2
    assert ".onnx or .tflite" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_unknown_command_exits_with_2():
    with pytest.raises(SystemExit, match="2"):
        main(["chekc"])


def python(*arguments):
    """What a fresh process prints."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def test_it_is_a_module():
    assert python("-m", "tensorflow_quantization", "--version").stdout.strip() == __version__


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_needs_no_model_imports_no_backend(option):
    code = (
        f"import sys; sys.argv = ['tensorflow-quantization', {option!r}]\n"
        "import tensorflow_quantization_cli\n"
        "try: tensorflow_quantization_cli.main()\n"
        "except SystemExit as status: print(status.code, *{'keras', 'tensorflow_quantization'} & set(sys.modules))"
    )
    shown, result = python("-c", code).stdout.rsplit("\n", 2)[:2]
    assert result == "0"
    assert "describe" in shown if option == "--help" else shown == __version__


def test_a_command_writes_no_notes_of_the_backend_to_stderr(quantized):
    command = python("-m", "tensorflow_quantization_cli", "describe", str(quantized / "m.keras"))
    assert "conv2d" in command.stdout
    assert command.stderr == ""


def test_help_names_the_runtimes_that_the_functions_take():
    assert set(CHECK_TARGETS) == set(RULES)
    assert set(REPORT_RUNTIMES) == set(RUNTIMES)
    assert set(EXPORT_TARGETS) == {name for name in TARGETS if name != "litert"}
    for target in EXPORT_TARGETS:
        check_target(target)
