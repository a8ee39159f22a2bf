"""`quantize`: from a `.keras` file and a folder of images to a verified file."""

import json
import re
import subprocess
import sys
import warnings

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from quantize_jobs import quantized, small_model

from tensorflow_quantization import runtime_report
from tensorflow_quantization_cli import main

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT needs TensorFlow")


def test_a_folder_of_images_becomes_a_verified_file(folder, capsys):
    assert quantized("--json") == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)  # progress is elsewhere
    assert "Quantize for onnxruntime" in captured.err and "dB  weights rounded" in captured.err
    assert runtime_report("model.onnx").integer_share == said["integer_share"] == 1.0
    assert said["bytes"]["quantized"] == (folder / "model.onnx").stat().st_size
    assert said["samples"] == 4 and said["held_out"]
    low, high = said["latency_ratio_interval"]
    assert said["milliseconds"]["float"] > 0 and 0 < low <= said["latency_ratio"] <= high


def test_the_ratio_is_that_of_the_file_on_samples_that_calibration_did_not_see(folder, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    np.save("data.npy", np.random.default_rng(1).integers(0, 256, (30, 8, 8, 3)).astype("uint8"))
    assert quantized("--json", "--seed", "3", data="data.npy") == 0
    said = json.loads(capsys.readouterr().out)
    chosen = np.random.default_rng(3).permutation(30)[:6]
    x = np.load("data.npy")[chosen].astype("float32")
    (found,) = onnxruntime.InferenceSession("model.onnx").run(None, {"image": x})
    exact = keras.saving.load_model("model.keras").predict(x, verbose=0)
    assert said["snr"] == pytest.approx(10 * np.log10(np.sum(exact**2) / np.sum((exact - found) ** 2)), abs=0.1)
    assert said["same_class"] == np.mean(exact.argmax(1) == found.argmax(1))


@pytest.mark.slow
def test_the_same_seed_writes_the_same_file(folder):
    for name in ("one.onnx", "two.onnx"):
        assert quantized("--steps", "2", "--batch-size", "4", output=name) == 0
    assert (folder / "one.onnx").read_bytes() == (folder / "two.onnx").read_bytes()


def test_a_figure_below_its_limit_is_an_exit_status(folder, capsys):
    assert quantized("--min-snr", "1000", "--min-integer-share", "0.5") == 1
    captured = capsys.readouterr()
    assert "below the limit of 1000 dB" in captured.err and "signal-to-noise" in captured.out
    assert "--effort best and --steps 500 may help; `compare` names" in captured.err
    assert (folder / "model.onnx").exists()


def test_a_file_that_is_near_on_samples_of_the_calibration_only_is_named(folder, capsys):
    """The samples that are kept apart are ten times as large, so that the ranges are too narrow for them."""
    small_model(rescaling=False).save("model.keras")
    x = np.random.default_rng(1).random((20, 8, 8, 3)).astype("float32")
    np.save("data.npy", x)
    assert quantized(data="data.npy") == 0
    assert "too few" not in capsys.readouterr().err
    x[np.random.default_rng(0).permutation(20)[:4]] *= 10
    np.save("data.npy", x)
    for arguments, hint in (
        ([], "the calibration had too few samples for this model, 16. Pass more as --data: up to 256 are used."),
        (
            ["--samples", "12"],
            "the calibration had too few samples for this model, 12. Pass a larger --samples, up to 256.",
        ),
    ):
        assert quantized("--force", "--json", *arguments, data="data.npy") == 0
        captured = capsys.readouterr()
        found = json.loads(captured.out)
        assert found["calibration_snr"] > 35 and found["snr"] < 20
        assert f"{found['snr']:.1f} dB on others: {hint}" in captured.err
    assert found["calibrated"] == 12
    np.save("data.npy", x[:3])  # too few to spare some
    assert quantized("--force", "--json", data="data.npy") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["calibration_snr"] is None
    assert "The ranges and the accuracy are of the same 3 samples, so other samples may lose more." in captured.err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: keras.ops.relu(-1 - keras.ops.abs(x)), "the float model returns the same for all 4 samples"),
        (lambda x: keras.ops.sign(keras.ops.abs(x) + 1), "the float model returns the same for all 4 samples"),
        (lambda x: keras.ops.sign(x + 1.3), "the outputs are those of the float model, so nothing"),
    ],
)
def test_an_output_that_tells_nothing_is_no_figure(folder, capsys, change, text):
    """An output that is always zero, always one, or the same numbers before and after."""
    model = small_model()
    keras.Model(model.inputs, change(model.outputs[0])).save("model.keras")
    assert quantized() == 0
    said = capsys.readouterr()
    assert f"signal-to-noise  no figure: {text}" in said.out and " dB" not in said.out and "same class" not in said.out
    assert f"warning: The accuracy is not measured: {text}" in said.err
    assert quantized("--force", "--json", "--min-snr", "1") == 1
    said = capsys.readouterr()
    figures = json.loads(said.out)
    assert figures["snr"] is figures["same_class"] is None and figures["nothing_measured"].startswith(text)
    assert f"The signal-to-noise ratio could not be had, so the limit of 1 dB is not met: {text}" in said.err


@pytest.mark.parametrize("target", ["onnxruntime", pytest.param("litert", marks=ON_TENSORFLOW)])
def test_classes_as_integers_are_compared_one_by_one(folder, capsys, target):
    model = small_model()
    maps = model.get_layer("conv").output
    keras.Model(model.inputs, keras.ops.argmax(maps, axis=-1)).save("model.keras")
    output = f"model.{'tflite' if target == 'litert' else 'onnx'}"
    assert quantized("--json", "--target", target, output=output) == 0
    said = capsys.readouterr()
    figures = json.loads(said.out)
    assert figures["snr"] is None and 0.8 < figures["same_class"] <= 1
    assert figures["nothing_measured"] == "the outputs are no floats" and "not measured" not in said.err
    # Keras writes an operator into the float `.tflite` file that LiteRT does not have.
    assert (figures["milliseconds"] is None) == (target == "litert")


def test_a_link_as_output_stays_and_its_file_is_replaced(folder, capsys):
    (folder / "store").mkdir()
    (folder / "model.onnx").symlink_to("store/v1.onnx")
    assert quantized() == 0
    assert (folder / "model.onnx").is_symlink() and (folder / "store" / "v1.onnx").is_file()
    with pytest.raises(SystemExit, match="2"):
        quantized()
    assert "model.onnx exists already. Pass --force" in capsys.readouterr().err
    (folder / "lost.onnx").symlink_to("nowhere/v1.onnx")
    with pytest.raises(SystemExit, match="2"):
        quantized(output="lost.onnx")
    assert "nowhere does not exist; create it first." in capsys.readouterr().err


def test_a_file_that_appeared_in_the_meantime_is_not_replaced(folder, monkeypatch, capsys):
    from tensorflow_quantization_cli import summary

    def measure(*arguments, measure=summary.measure):
        (folder / "page.html").write_text("precious")
        return measure(*arguments)

    monkeypatch.setattr(summary, "measure", measure)
    assert quantized("--html", "page.html", "--keep", "kept") == 2
    assert "page.html exists: it was written in the meantime, and is not replaced." in capsys.readouterr().err
    assert (folder / "page.html").read_text() == "precious"
    assert sorted(path.name for path in folder.iterdir()) == ["images", "model.keras", "page.html"]


def test_help_for_a_low_figure_names_what_was_not_passed(folder, capsys):
    assert quantized("--min-snr", "1000", "--effort", "best", "--keep", "kept") == 1
    said = capsys.readouterr().err
    assert "--effort best" not in said
    assert "--steps 500 may help; `compare` names the layer that loses most, from kept/..." in said
    assert "\x1b" not in said and "\r" not in said  # no terminal: progress is plain lines


@ON_TENSORFLOW
def test_unknown_steps_are_refused_for_litert_before_any_work(folder, capsys):
    pytest.importorskip("ai_edge_litert")
    inputs = keras.Input((None, 3), name="x")
    keras.Model(inputs, layers.LSTM(4, name="lstm")(inputs)).save("model.keras")
    np.save("data.npy", np.zeros((9, 5, 3), "float32"))
    assert quantized(data="data.npy", output="model.tflite") == 2
    said = capsys.readouterr().err
    assert "Layer 'lstm' reads sequences with an unknown number of steps" in said and "Read" not in said


@pytest.mark.slow
@ON_TENSORFLOW
def test_the_ending_chooses_litert(folder, capsys):
    pytest.importorskip("ai_edge_litert")
    assert quantized("--json", output="model.tflite") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["target"] == said["runtime"] == "litert"
    assert said["snr"] > 25 and said["integer_share"] == 1.0


@pytest.mark.slow
@ON_TENSORFLOW
@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_recurrent_layers_are_measured_in_litert(folder, capsys):
    """The float file that the quantized one is compared with has no loops either: LiteRT would not run it."""
    pytest.importorskip("ai_edge_litert")
    inputs = keras.Input((5, 6))
    keras.Model(inputs, layers.Dense(3)(layers.LSTM(8)(inputs))).save("lstm.keras")
    np.save("sequences.npy", np.random.default_rng(0).uniform(-1, 1, (40, 5, 6)).astype("float32"))
    arguments = ["--data", "sequences.npy", "--output", "lstm.tflite", "--json"]
    assert main(["quantize", "lstm.keras", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["snr"] > 20


def test_several_inputs_come_from_an_archive(folder, capsys):
    pytest.importorskip("openvino")
    left, right = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    outputs = layers.Dense(3)(layers.Concatenate()([layers.Dense(8)(left), right]))
    keras.Model([left, right], outputs).save("model.keras")
    rng = np.random.default_rng(0)
    np.savez("data.npz", right=rng.normal(size=(40, 4)), left=rng.normal(size=(40, 6)))
    assert quantized("--target", "openvino", "--weight-bits", "7", "--json", data="data.npz") == 0
    assert json.loads(capsys.readouterr().out)["runtime"] == "openvino"
    assert main(["quantize", "model.keras", "--data", "images", "-o", "other.onnx"]) == 2
    assert "this one has left (None, 6), right (None, 4). Pass an .npz file" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_kept_is_what_compare_reads(folder, capsys):
    assert quantized("--keep", "kept", "--weight-bits", "2") == 0
    capsys.readouterr()
    kept = ["kept/float.keras", "kept/quantized.keras", "kept/samples.npz", "--file", "model.onnx"]
    assert main(["compare", *kept]) == 0
    assert "output at" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        quantized("--keep", "kept", output="other.onnx")
    assert "kept exists already" in capsys.readouterr().err
    before = (folder / "kept" / "float.keras").read_bytes()
    for model, data in (("kept/float.keras", "images"), ("model.keras", "kept/samples.npz")):
        with pytest.raises(SystemExit, match="2"):
            main(["quantize", model, "--data", data, "-o", "other.onnx", "--keep", "kept", "--force"])
        assert "is read by this command, and would be replaced" in capsys.readouterr().err
    assert (folder / "kept" / "float.keras").read_bytes() == before


def test_a_page_shows_the_figures_of_the_summary(folder, capsys):
    assert quantized("--html", "page.html", "--method", "minmax") == 0
    said = capsys.readouterr().out
    assert said.endswith("HTML report: page.html\n")
    page = (folder / "page.html").read_text()
    latency = next(line.split()[3] for line in said.splitlines() if line.startswith("latency"))
    assert f'"value":"{latency} ms"' in page and "Same class as float" in page
    assert '"has_comparison":true' in page and "pass float_file" not in page


@pytest.mark.slow
def test_images_of_another_scale_get_the_option_that_helps(folder, capsys):
    small_model(rescaling=False).save("model.keras")
    assert quantized() == 0
    assert "the model has no layer that scales them" in capsys.readouterr().err
    assert quantized("--scale", "1/255", "--force") == 0
    assert "warning: The samples" not in capsys.readouterr().err
    np.save("data.npy", np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3)).astype("uint8"))
    assert quantized("--force", data="data.npy") == 0
    assert "the model has no layer that scales them" in capsys.readouterr().err
    small_model().save("model.keras")
    assert quantized("--scale", "1/255", "--force") == 0
    said = capsys.readouterr().err
    assert "layer 'rescaling' of the model multiplies them by 0.00392: they seem to be scaled twice" in said
    inputs = keras.Input((8, 8, 3))
    normalization = layers.BatchNormalization()
    model = keras.Model(inputs, layers.Conv2D(4, 3)(normalization(inputs)))
    normalization.moving_mean.assign([0.5] * 3)
    normalization.moving_variance.assign([0.08] * 3)
    model.save("model.keras")
    assert quantized("--force") == 0
    said = capsys.readouterr().err
    assert said.count("another scale") == 1 and "pass --scale 1/255" in said


def test_weights_in_blocks(folder, capsys):
    assert quantized("--block-size", "16", "--json") == 0
    file = onnx.load("model.onnx")
    (scale,) = (i for i in file.graph.initializer if i.name.endswith("scores/kernel_scale"))
    assert 9 in scale.dims  # of 144 inputs
    assert any(i.data_type == onnx.TensorProto.INT4 for i in file.graph.initializer)
    assert "`report model.onnx` lists which, and why; --block-size pays where" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        quantized("--block-size", "16", output="model.tflite")
    assert "leave --block-size out" in capsys.readouterr().err


@pytest.mark.parametrize(("target", "warned"), [("onnxruntime", True), ("openvino", False)])
def test_activations_that_run_in_floats_are_named_at_once(folder, capsys, target, warned):
    pytest.importorskip(target)
    assert quantized("--activation-bits", "4", "--target", target, "--json") == 0
    said = capsys.readouterr()
    assert (json.loads(said.out)["integer_share"] < 0.5) == warned
    assert ("multiplies floats where activations have less than 8 bits" in said.err.split("Quantize for")[0]) == warned
    assert "run in floats" not in said.err


def test_several_inputs_are_trained_and_what_keras_says_of_them_is_said_once(folder, capsys):
    """Keras warns of keys that are not the names of the inputs, for the model and for each copy."""
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    outputs = layers.Dense(3)(layers.Add()([layers.Dense(4)(left), layers.Dense(4)(right)]))
    x = np.random.default_rng(0).normal(size=(2, 20, 4)).astype("float32")
    np.savez("data.npz", left=x[0], right=x[1], one=x[0], two=x[1])
    for structure in ([left, right], (left, right), {"one": left, "two": right}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keras.Model(structure, outputs).save("model.keras")
        capsys.readouterr()
        assert quantized("--steps", "2", "--batch-size", "4", "--force", data="data.npz") == 0
        said = capsys.readouterr().err
        assert "2/2" in said
        assert said.count("Received key 'one'") == said.count("Received key 'two'") == isinstance(structure, dict)


@ON_TENSORFLOW
def test_notes_of_tensorflow_on_its_own_functions_are_left_out(folder):
    pytest.importorskip("tf2onnx")
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Lambda(lambda t: t / 255.0)(inputs)
    keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))).save("model.keras")
    command = ["quantize", "model.keras", "--data", "images", "-o", "model.onnx", "--trust"]
    done = subprocess.run(
        [sys.executable, "-m", "tensorflow_quantization_cli", *command], capture_output=True, text=True
    )
    assert done.returncode == 0 and "Quantize for" in done.stderr
    assert "deprecated" not in done.stderr and "Instructions for updating" not in done.stderr


def test_numbers_of_fp8(folder, capsys):
    fp8 = ("--dtype", "float8_e4m3fn")
    assert quantized(*fp8, "--target", "tensorrt") == 0
    said = capsys.readouterr()
    assert "in integers      no: the numbers are float8_e4m3fn" in said.out
    in_keras = float(re.findall(r"([\d.]+) dB  ", said.err)[-1])
    in_onnxruntime = float(re.search(r"signal-to-noise  ([\d.]+) dB", said.out)[1])
    assert abs(in_onnxruntime - in_keras) < 5  # of other samples; a lost ReLU costs more
    file = onnx.load("model.onnx")
    assert any(i.data_type == onnx.TensorProto.FLOAT8E4M3FN for i in file.graph.initializer)
    capsys.readouterr()
    for arguments, message in (
        (["--target", "openvino"], "is for --target tensorrt"),
        (["--target", "tensorrt", "--weight-bits", "4"], "--weight-bits is for integers"),
        (["--target", "tensorrt", "--effort", "best"], "leave it out with --dtype"),
        (["--target", "tensorrt", "--min-integer-share", "0.5"], "--min-integer-share is for integers"),
        (["--target", "tensorrt", "--dtype", "fp8"], "Did you mean 'float8_e4m3fn'?"),
    ):
        with pytest.raises(SystemExit, match="2"):
            quantized(*fp8, *arguments, "--force")
        assert message in capsys.readouterr().err


def test_a_module_registers_the_layers_of_the_model(folder, capsys):
    (folder / "own_layers.py").write_text(
        "import keras\n\n\n@keras.saving.register_keras_serializable('own')\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, inputs):\n        return 2.0 * inputs\n"
    )
    code = "import keras, own_layers\nx = keras.Input((8, 8, 3))\n"
    code += "keras.Model(x, keras.layers.Conv2D(2, 3)(own_layers.Twice()(x))).save('model.keras')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
    assert main(["describe", "model.keras"]) == 2
    assert "has the class 'Twice', which is not imported." in capsys.readouterr().err
    assert main(["describe", "model.keras", "--import", "own_layer"]) == 2
    assert "--import own_layer failed: ModuleNotFoundError" in capsys.readouterr().err
    assert main(["describe", "model.keras", "--import", "own_layers.py"]) == 2
    assert "Pass own_layers." in capsys.readouterr().err
    assert main(["describe", "model.keras", "--import", "own_layers"]) == 0
