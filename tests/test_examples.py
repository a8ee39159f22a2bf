"""The examples and benchmarks run, as a user would run them: in a process and a folder of their own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
#: Each with what it prints or the file it writes, as a sign that it came to its end.
EXAMPLES = {
    "basics": "toolkit_basics/example/int8/quantized.onnx",
    "class_quantization": "dense_only.onnx",
    "custom_case": "PooledConcatenateQDQCase",
    "full_quantization": "full custom",
    "new_layer": "autoencoder.onnx",
    "partial_quantization": "partial.onnx",
    "residual_network": "resnet50_int8.onnx",
    "transfer_learning": "transfer_learning.onnx",
}


def run(script: pathlib.Path, folder: pathlib.Path, *arguments: str) -> str:
    """What a script prints, with a tenth of the training images; the test fails if it fails."""
    environment = {
        **os.environ,
        "FASHION_MNIST_IMAGES": "6000",
        "PYTHONPATH": str(ROOT),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    # With oneDNN and one thread, TensorFlow 2.21 ends with "double free or corruption" where the roundings of fer are
    # trained, on a processor with AVX-512 and without VNNI.
    environment["TF_ENABLE_ONEDNN_OPTS"] = "0"
    processor = "ignore:ONNX Runtime saturates on this processor:UserWarning"
    command = [sys.executable, "-W", "error::UserWarning", "-W", processor, str(script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_every_example_is_tested():
    helpers = {"fashion_mnist", "models", "report", "quickstart"}
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == helpers | set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path):
    printed = run(ROOT / "examples" / f"{name}.py", tmp_path)
    assert EXAMPLES[name] in printed or (tmp_path / EXAMPLES[name]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["calibrate_time", "export", "quantize_time", "scale"])
def test_benchmark_prints_its_table(name, tmp_path):
    assert "| --- |" in run(ROOT / "benchmarks" / f"{name}.py", tmp_path, "--quick")


@pytest.mark.slow
def test_training_benchmark_trains_and_runs_the_file(tmp_path):
    arguments = ("--quick", "--settings", "W4A8", "--ways", "fine_tune", "--docs", "docs")
    printed = run(ROOT / "benchmarks" / "training.py", tmp_path, *arguments)
    assert "| W4A8 | resnet | 1 | " in printed
    assert "1 of the files ran in ONNX Runtime" in printed
    assert (tmp_path / "docs" / "training.md").read_text().strip() == printed.strip()


@pytest.mark.slow
def test_latency_benchmark_measures_ours_and_the_peers_in_each_runtime(tmp_path):
    printed = run(ROOT / "benchmarks" / "latency.py", tmp_path, "--quick", "--docs", "docs")
    for runtime, target, peers in (
        ("ONNX Runtime", "onnxruntime", ["quantize_static int8", "quantize_static uint8"]),
        ("OpenVINO", "openvino", [] if "not installed: nncf" in printed else ["NNCF mixed", "NNCF performance"]),
        ("LiteRT", "litert", ["post-training int8"]),
    ):
        rows = [row for row in printed.splitlines() if row.startswith(f"| {runtime} | 8 |")]
        assert [row for row in rows if f"| ours, {target} |" in row and "| 100.0 % |" in row]
        assert all(any(f"| {peer} |" in row for row in rows) for peer in peers)
    assert (tmp_path / "docs" / "latency.md").read_text() in printed
    assert (tmp_path / "docs" / "latency.svg").read_text().endswith("</svg>\n")


@pytest.mark.slow
def test_accuracy_benchmark_measures_ours_and_the_peers_in_each_runtime(tmp_path):
    printed = run(ROOT / "benchmarks" / "accuracy.py", tmp_path, "--quick", "--docs", "docs")
    if "| fer |" not in printed:
        pytest.skip("the network cannot be had here")
    details = printed.split("## All files")[1]
    for runtime in ("ONNX Runtime", "OpenVINO", "LiteRT"):
        rows = [row.split(" | ") for row in details.splitlines() if row.startswith(f"| {runtime} |")]
        decibels = {row[1]: float(row[2]) for row in rows if row[2].strip()}
        assert decibels["ours, post_training_quantize"] > 15
        assert runtime == "OpenVINO" or any(not name.startswith("ours") for name in decibels)
    assert "failed" not in details
    assert (tmp_path / "docs" / "accuracy.md").read_text() in printed
    assert (tmp_path / "docs" / "accuracy.svg").read_text().endswith("</svg>\n")


@pytest.mark.slow
def test_tensorrt_benchmark_builds_our_files_in_integers(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    run(ROOT / "benchmarks" / "tensorrt.py", tmp_path, "--quick", "--folder", "figures", "--docs", "docs")
    files = json.loads((tmp_path / "figures" / "two residual blocks.json").read_text())
    for name in ("ours", "ours, float16", "ours, default placement"):
        assert files[name]["integer_share"] == 1 and files[name]["snr"] > 15
    assert files["ours"]["float_kernels"] == files["float16"]["integer_share"] == 0
    assert files["ours, float16"]["float_bytes"] < files["ours"]["float_bytes"]
    assert (tmp_path / "docs" / "tensorrt.svg").read_text().endswith("</svg>\n")


@pytest.mark.slow
def test_tensorrt_benchmark_makes_its_page_of_kept_figures_and_says_where_ours_is_worse(tmp_path):
    built = {"integer_share": 1.0, "kernels": 8, "float_kernels": 1, "float_bytes": 2_000_000, "build_seconds": 1.0}
    files = {
        "ours": {**built, "snr": 20.0, "date": "2026-01-02"},
        "ModelOpt": {**built, "kernels": 7, "float_bytes": 3_000_000, "snr": 21.0, "date": "2026-01-01"},
        "ModelOpt, max": {"snr": 22.0},
        "ModelOpt, float16": {"failed": "RuntimeError: no"},
    }
    (tmp_path / "VGG16.json").write_text(json.dumps(files))
    arguments = ("--networks", "--folder", ".", "--docs", "docs")
    printed = run(ROOT / "benchmarks" / "tensorrt.py", tmp_path, *arguments)
    assert "ours: 2026-01-02 (1 networks); ModelOpt: 2026-01-01 (1 networks)." in printed
    assert "Measured: 1 of 54 networks. Not yet: ConvNeXtBase, " in printed
    assert "| VGG16 | 100.00 % | 100.00 % | 8 | 7 | 1 | 1 | 2.0 | 3.0 |" in printed
    worse = printed.split("## Where ours is worse")[1].split("## ")[0]
    lines = [line for line in worse.splitlines() if line.startswith("- ")]
    assert lines == ["- VGG16, ours: 8 kernels, ModelOpt 7", "- VGG16: 20.0 dB, ModelOpt 22.0"]
    assert "- VGG16, ModelOpt, float16: failed: `RuntimeError: no`" in printed
    assert (tmp_path / "docs" / "tensorrt.md").read_text() in printed
