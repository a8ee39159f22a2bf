"""The commands, on real files: check, report, describe, compare, sensitivity, export, env and completion."""

import json
import os
import random
import shutil
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from mutations import mutate

import tensorflow_quantization
from tensorflow_quantization import QuantizationSpec, __version__, calibrate, check_onnx, export_onnx, quantize_model
from tensorflow_quantization.accuracy import post_training
from tensorflow_quantization.calibration.calibrate import METHODS as CALIBRATION_METHODS
from tensorflow_quantization.export import validation
from tensorflow_quantization.export.verification import onnx_runtimes
from tensorflow_quantization.inspection.checks.check import RULES
from tensorflow_quantization.inspection.runtime.runtime_report import RUNTIMES
from tensorflow_quantization.mixed_precision.sensitivity import CALIBRATION_SAMPLES
from tensorflow_quantization.quantizers.scheme import FLOAT8
from tensorflow_quantization.targets import TARGETS
from tensorflow_quantization_cli import main, results, start
from tensorflow_quantization_cli.arguments import METHODS, MOST_SAMPLES
from tensorflow_quantization_cli.arguments import TARGETS as ALL_TARGETS
from tensorflow_quantization_cli.commands import benchmark, check, compare, export, quantize, report


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


def test_report_builds_for_tensorrt(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    inputs = keras.Input((None, None, 3), name="image")
    model = quantize_model(keras.Model(inputs, layers.Conv2D(4, 3)(inputs)), target="tensorrt")
    data = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    path = str(export_onnx(calibrate(model, data, verbose=0), tmp_path / "m.onnx"))
    assert main(["report", path, "--runtime", "tensorrt"]) == 2
    assert "pass input_shapes" in capsys.readouterr().err
    options = ["--input-shape", "image:2x8x8x3", "--compute-capability", "8.6"]
    assert main(["report", path, "--runtime", "tensorrt", *options]) == 0
    assert "100.0 % of 7.78 k multiply-accumulates in integers" in capsys.readouterr().out


def test_a_shape_without_sizes_is_an_error(quantized, capsys):
    with pytest.raises(SystemExit):
        main(["report", str(quantized / "m.onnx"), "--input-shape", "image:1x"])
    assert "image:1x224x224x3, got image:1x" in capsys.readouterr().err


def test_describe_names_the_layers(quantized, capsys):
    assert main(["describe", str(quantized / "m.keras")]) == 0
    assert "conv2d" in capsys.readouterr().out


def test_describe_says_how_to_quantize_a_float_model(tmp_path, cnn, capsys):
    cnn.save(tmp_path / "m.keras")
    assert main(["describe", str(tmp_path / "m.keras")]) == 0
    said = capsys.readouterr().out
    assert "no quantizers, it is a float model: quantize_model, or the command `quantize`, adds them" in said
    assert "float; quantize_model quantizes it" in said


def test_compare_names_the_guilty_layer(tmp_path, images, cnn, capsys):
    spec = QuantizationSpec()
    spec.add("conv", weight_bits=2)
    cnn.save(tmp_path / "float.keras")
    calibrate(quantize_model(cnn, quantization_spec=spec), images[0], verbose=0).save(tmp_path / "q.keras")
    np.save(tmp_path / "images.npy", images[0])
    assert main(["compare", *(str(tmp_path / name) for name in ("float.keras", "q.keras", "images.npy"))]) == 0
    assert "Guilty: conv" in capsys.readouterr().out


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
        (["check", "missing.onnx"], "There is no file missing.onnx."),
        (["check", "m.onnx", "--target", "tensortr"], "Did you mean 'tensorrt'?"),
        (["report", "m.onnx", "--runtime", "onnx"], "'onnxruntime'"),
        (["describe", "missing.keras"], "There is no file missing.keras."),
        (["export", "m.keras", "m2.onnx", "--precision", "float61"], "'float16'"),
        (["export", "m.keras", "m2.onnx", "--opset", "12"], "from 13, got 12"),
        (["export", "m.keras", "m2.onnx", "--opset", "x"], "from 13, got x"),
        (["export", "m.keras", "m2.onnx", "--input-layout", "nchw"], "'channels_first'"),
        (["export", "m.keras", "m2.onnx", "--target", "litert"], "'openvino'"),
        (["export", "missing.keras", "m2.onnx"], "There is no file missing.keras."),
        (["export", "m.keras", "m2.txt"], ".onnx or .tflite"),
        (["export", "m.keras", "m.keras"], ".onnx or .tflite"),
        (["export", "m.keras", "nowhere/m2.onnx"], "The directory nowhere does not exist"),
        (["describe", "m.onnx"], "expected a .keras, .h5 or .hdf5 file. An .onnx file is read by"),
        (["describe", "m.tflite"], "A .tflite file is written from a Keras model"),
        (["export", "m.onnx", "m2.onnx"], "m.onnx is not a saved Keras model"),
        (["quantize", "m.pb", "--data", "m.npy", "-o", "m2.onnx"], "m.pb is not a saved Keras model"),
        (["sensitivity", "m.weights.h5", "--data", "m.npy"], "m.weights.h5 holds weights only"),
        (["compare", "m.keras", "folder", "m.npy"], "folder is a directory; pass the path of a .keras"),
        (["report", "m.onnx", "--min-integer-share", "90"], "A share is from 0 to 1, got 90. Pass 0.9 for 90 %."),
        (["report", "m.onnx", "--html", "nowhere/page.html"], "The directory nowhere does not exist"),
        (["report", "m.onnx", "--html", "page.txt"], "Pass page.html."),
        (["report", "m.onnx", "--html", "page.html", "--compute-capability", "8.6"], "leave out --input-shape"),
    ],
)
def test_a_wrong_argument_is_said_before_the_package_is_imported(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    names = ["m.keras", "m.npy", "m.onnx", "m.pb", "m.tflite", "m.weights.h5"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(start, "package", lambda: pytest.fail("the package was imported"))
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", *names]


def test_options_of_onnx_do_not_apply_to_tflite(quantized, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(quantized / "m.keras"), str(quantized / "m2.tflite"), "--opset", "17"])
    assert "--opset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "name", "message"),
    [
        ("check", "m.keras", "is a file of Keras. Write its model as an .onnx file first"),
        ("report", "m.keras", "is a file of Keras"),
        ("check", "zip.onnx", "is a file of Keras"),
        ("check", "lite.onnx", "is a LiteRT file"),
    ],
)
def test_a_file_of_another_kind_is_named(quantized, capsys, command, name, message):
    (quantized / "lite.onnx").write_bytes(b"\x1c\0\0\0TFL3")
    (quantized / "zip.onnx").write_bytes((quantized / "m.keras").read_bytes())
    assert main([command, str(quantized / name)]) == 2
    assert message in capsys.readouterr().err


MUTATIONS = 16


@pytest.mark.parametrize("name", ["m.keras", "m.onnx"])
def test_a_damaged_file_is_said_in_one_line(name, quantized, capsys):
    path, commands = quantized / name, {"m.keras": ["describe", "export"], "m.onnx": ["check", "report"]}[name]
    data = path.read_bytes()
    for seed in range(MUTATIONS):
        path.write_bytes(mutate(data, random.Random(seed)))
        command = commands[seed % 2]
        output = [str(quantized / "m2.onnx"), "--force"] if command == "export" else []
        status = main([command, str(path), *output])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        if status == 2:
            assert captured.err.startswith("tensorflow-quantization: ") and name in captured.err, f"seed {seed}"
        else:
            assert captured.out and not captured.err, f"seed {seed}"


def test_code_in_a_file_runs_only_if_the_user_trusts_it(tmp_path, capsys):
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2, name="own"), layers.Dense(2)])
    path, output = tmp_path / "m.keras", tmp_path / "m.onnx"
    model.save(path)
    commands = [["describe", str(path)], ["export", str(path), str(output)]]
    # Only TensorFlow's own converter writes a Lambda layer.
    for command in commands if keras.backend.backend() == "tensorflow" else commands[:1]:
        assert main(command) == 2
        assert "It was not run" in (said := capsys.readouterr().err) and "--trust" in said
        assert not output.exists()
        assert main([*command, "--trust"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chekc"], "there is no command 'chekc'. Did you mean 'check'?"),
        (["xyz"], "There are quantize, compare, sensitivity, benchmark, check, report"),
        (["describe", "m.keras", "--jsno"], "there is no option '--jsno'. Did you mean '--json'?"),
        (["describe", "m.keras", "--js"], "there is no option '--js'. Did you mean '--json' or"),
        (["describe", "m.keras", "m2.keras"], "one argument too many: m2.keras"),
    ],
)
def test_an_unknown_name_gets_the_closest(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.keras").touch()
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_without_arguments_the_help_is_shown(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "sensitivity" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::UserWarning")
def test_a_warning_is_one_line_without_source_code(tmp_path, cnn, capsys):
    quantize_model(cnn, target="onnxruntime").save(tmp_path / "q.keras")
    assert main(["export", str(tmp_path / "q.keras"), str(tmp_path / "q.onnx")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tensorflow-quantization: warning: ") and "never saw data" in line


def test_json_of_each_report(quantized, capsys):
    keras_file, onnx_file = str(quantized / "m.keras"), str(quantized / "m.onnx")
    assert main(["describe", keras_file, "--json"]) == 0
    assert {layer["name"] for layer in json.loads(capsys.readouterr().out)["layers"]} >= {"quant_conv2d", "quant_dense"}
    assert main(["check", onnx_file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "onnxruntime"
    assert main(["report", onnx_file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["integer_share"] == 1.0
    assert main(["export", keras_file, str(quantized / "m2.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == (quantized / "m2.onnx").stat().st_size


def test_report_and_check_have_limits_for_builds(tmp_path, capsys):
    inputs = keras.Input((8, 8, 3), name="image")
    path = str(export_onnx(keras.Model(inputs, layers.Conv2D(4, 3)(inputs)), tmp_path / "float.onnx"))
    assert main(["report", path, "--min-integer-share", "0.5"]) == 1
    assert "The share in integers is 0, below the limit of 0.5." in capsys.readouterr().err
    warned = bool(check_onnx(path).warnings)
    assert main(["check", path, "--strict"]) == int(warned)


def test_report_takes_the_target_of_the_file(tmp_path, capsys):
    pytest.importorskip("openvino")
    inputs = keras.Input((8, 8, 3), name="image")
    model = quantize_model(keras.Model(inputs, layers.Conv2D(4, 3)(inputs)), target="openvino")
    calibrate(model, np.random.default_rng(0).normal(size=(4, 8, 8, 3)), verbose=0)
    assert main(["report", str(export_onnx(model, tmp_path / "m.onnx"))]) == 0
    assert "OpenVINO" in capsys.readouterr().out


def test_compare_and_sensitivity_exit_with_1_below_a_limit(tmp_path, cnn, images, capsys):
    cnn.save(tmp_path / "float.keras")
    calibrate(quantize_model(cnn), images[0], verbose=0).save(tmp_path / "q.keras")
    np.savez(tmp_path / "images.npz", image=images[0])
    paths = [str(tmp_path / name) for name in ("float.keras", "q.keras", "images.npz")]
    assert main(["compare", *paths, "--json", "--min-snr", "1000"]) == 1
    captured = capsys.readouterr()
    snr = json.loads(captured.out)["output_snr"]
    assert 20 < snr < 1000 and f"is {snr:.4g} dB, below the limit of 1000 dB" in captured.err
    arguments = ["sensitivity", paths[0], "--data", paths[2], "--weight-bits", "2,8", "--json"]
    assert main(arguments) == 0
    (conv, _) = json.loads(capsys.readouterr().out)["layers"]
    assert conv["layer"] == "conv" and conv["snr"]["W8A8"] > conv["snr"]["W2A8"]
    assert main([*arguments, "--min-snr", str(conv["snr"]["W2A8"] + 1)]) == 1


def test_nothing_is_overwritten_without_force(quantized, capsys):
    keras_file, onnx_file = quantized / "m.keras", quantized / "m.onnx"
    before = onnx_file.stat().st_mtime_ns
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(keras_file), str(onnx_file)])
    assert "exists already. Pass --force" in capsys.readouterr().err
    assert onnx_file.stat().st_mtime_ns == before
    assert main(["export", str(keras_file), str(onnx_file), "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "function", "output"),
    [
        (["export", "m.keras", "new.onnx"], "export_onnx", "new.onnx"),
        (["report", "m.onnx", "--html", "page.html"], "html_report", "page.html"),
    ],
)
def test_a_file_that_appeared_in_the_meantime_is_not_replaced(
    quantized, monkeypatch, capsys, arguments, function, output
):
    monkeypatch.chdir(quantized)
    write = getattr(tensorflow_quantization, function)

    def slow(*given, **options):
        (quantized / output).write_text("precious")
        return write(*given, **options)

    monkeypatch.setattr(tensorflow_quantization, function, slow)
    assert main(arguments) == 2
    assert f"{output} exists: it was written in the meantime" in capsys.readouterr().err
    assert (quantized / output).read_text() == "precious"
    assert main([*arguments, "--force"]) == 0
    assert (quantized / output).read_bytes() != b"precious"


@pytest.mark.slow
def test_compare_and_report_write_a_page(tmp_path, cnn, images, capsys):
    pytest.importorskip("onnxruntime")
    cnn.save(tmp_path / "f.keras")
    model = calibrate(quantize_model(cnn, target="onnxruntime"), images[0], verbose=0)
    model.save(tmp_path / "m.keras")
    onnx_file, page = str(export_onnx(model, tmp_path / "m.onnx")), tmp_path / "page.html"
    np.save(tmp_path / "images.npy", images[0])
    assert main(["report", onnx_file, "--html", str(page)]) == 0
    assert f"HTML report: {page}" in capsys.readouterr().out
    assert "Conv" in (of_file := page.read_text())
    keras_files = [str(tmp_path / name) for name in ("f.keras", "m.keras", "images.npy")]
    arguments = ["compare", *keras_files, "--file", onnx_file, "--html", str(page)]
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "page.html exists already. Pass --force" in capsys.readouterr().err
    assert page.read_text() == of_file
    assert main([*arguments, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output_snr"] is not None  # stdout holds JSON alone
    assert '"has_comparison":true' in page.read_text() and '"has_comparison":true' not in of_file


def test_env_names_versions_and_devices(capsys):
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["packages"]["keras"] == keras.__version__
    assert facts["backend"] == keras.backend.backend() and facts["devices"]
    assert main(["env"]) == 0
    assert keras.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_options_and_names(shell, capsys):
    pytest.importorskip("shtab", reason="shtab, which writes the completion, is not installed")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("sensitivity", "min-snr", "onnxruntime"))
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, capture_output=True).stderr == ""


def test_completion_without_its_library_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'tensorflow-quantization[completion]'" in capsys.readouterr().err


def python(*arguments, check=True):
    """What a fresh process prints, in the environment of a user who sets nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=check, env=environment)


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


@pytest.mark.parametrize("arguments", [["--help"], ["check", "missing.onnx"], ["chekc"]])
def test_the_module_answers_before_it_imports_keras(arguments):
    done = python("-X", "importtime", "-m", "tensorflow_quantization", *arguments, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "tensorflow_quantization._command_line" in imported
    assert "keras" not in imported
    assert "usage: tensorflow-quantization" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT needs the TensorFlow backend")
def test_an_export_to_litert_writes_no_notes_to_stderr(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])
    data = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    calibrate(quantize_model(model, target="litert"), data, verbose=0).save(tmp_path / "m.keras")
    done = python(
        "-m", "tensorflow_quantization", "export", str(tmp_path / "m.keras"), str(tmp_path / "m.tflite"), check=False
    )
    assert done.stdout.strip() == str(tmp_path / "m.tflite")
    assert done.stderr == ""


def test_help_names_the_runtimes_that_the_functions_take():
    assert set(check.TARGETS) == set(RULES)
    assert set(report.RUNTIMES) == set(RUNTIMES)
    assert set(compare.RUNTIMES) == set(benchmark.RUNTIMES) == set(onnx_runtimes.RUNTIMES)
    assert set(ALL_TARGETS) == set(TARGETS)
    assert set(export.TARGETS) == {name for name in TARGETS if name != "litert"}
    for target in export.TARGETS:
        validation.check_target(target)


def test_options_take_what_the_functions_take():
    assert set(export.PRECISIONS) == set(validation.TOLERANCES)
    assert set(export.INPUT_LAYOUTS) == set(validation.INPUT_LAYOUTS)
    assert export.OLDEST_OPSET == validation.MIN_OPSET
    assert METHODS == CALIBRATION_METHODS
    assert quantize.EFFORTS == post_training.EFFORTS
    assert (FLOAT8,) == quantize.DTYPES
    assert MOST_SAMPLES == post_training._SAMPLES == CALIBRATION_SAMPLES


def test_a_limit_on_an_unknown_figure_is_not_passed(capsys):
    assert results.below("The share in integers", None, 0.5, "")
    assert "The share in integers could not be had, so the limit of 0.5 is not met." in capsys.readouterr().err
    assert not results.below("The share in integers", None, None, "")
