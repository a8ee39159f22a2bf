"""`html_report`: one HTML file that shows what quantization did to a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from tensorflow_quantization.comparison import Comparison
from tensorflow_quantization.model.graph import check_is_model
from tensorflow_quantization.reporting.contents import Figure
from tensorflow_quantization.reporting.gathering import gathered
from tensorflow_quantization.reporting.page import page_of
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import is_path, must_be_path
from tensorflow_quantization.text.replacing import check_writable, replacing


@suggests_arguments
def html_report(
    path: str | os.PathLike,
    quantized: keras.Model | None = None,
    *,
    float_model: keras.Model | None = None,
    data: Any = None,
    file: str | os.PathLike | None = None,
    float_file: str | os.PathLike | None = None,
    runtime: str | None = None,
    comparison: Comparison | None = None,
    metrics: Mapping[str, tuple[Figure, Figure]] | None = None,
    latency: bool = True,
) -> Path:
    """Writes a report on a quantized network: one HTML file, which a browser opens without a network.

    The page shows the network as a graph in which the colour of a node says whether it really ran in integers, the
    layers with their signal-to-noise ratios and the histograms of what their quantizers get, size and latency beside
    float, what `compare`, `check_onnx` and `runtime_report` found, and what to do. It shows what it can for the
    arguments given, and says at its end what it left out and why.

    Examples:
        >>> quantized = calibrate(quantize_model(model, target="onnxruntime"), images, verbose=0)
        >>> file = export_onnx(quantized, "model.onnx")
        >>> html_report("report.html", quantized, float_model=model, data=images, file=file).name
        'report.html'
        >>> html_report("of_a_file.html", file="model.onnx", metrics={"top-1 accuracy": ("91.4 %", "91.5 %")}).name
        'of_a_file.html'

    Args:
        path: the path of the HTML file to write. An existing file is replaced.
        quantized: the quantized model: its layers, ranges, and the distribution of its weights. Default: `None`.
        float_model: the float model, see `compare`: signal-to-noise, and float's size and latency. Default: `None`.
        data: samples as in use, see `compare`: signal-to-noise, and the distribution of activations. Default: `None`.
        file: the path of an exported file, `.onnx` or `.tflite`: what ran in integers, rules of the runtime, size,
            latency. Default: `None`.
        float_file: the path of the float file to compare size and latency with. Default: `None`, `float_model` is
            exported for the comparison if `file` is an ONNX file.
        runtime: the runtime that is asked about an ONNX file: "onnxruntime", "openvino" or "tensorrt". Default: `None`,
            the target of the file if it is installed, else ONNX Runtime.
        comparison: a result of `compare`, which is then not computed again. Default: `None`.
        metrics: figures that are yours, by name: pairs of the float model's and the quantized model's, such as
            {"top-1 accuracy": (0.914, 0.915)}. A figure is a number, a text, or `None`. Default: `None`.
        latency: whether to measure an ONNX file, 50 runs on one sample of noise, in ONNX Runtime or OpenVINO. Default:
            `True`.

    Returns:
        The path of the report.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: `path` does not end in `.html`, neither `quantized` nor `file` is given, `runtime` is unknown, a
            file is not valid, or `compare` raises it: the models or the data do not fit.
        OSError: `path` cannot be written, or a file does not exist. An existing report is unchanged after any error.
        ImportError: `runtime` is not installed.
    """
    if not is_path(path):
        hint = " Pass the path first: html_report(path, quantized)." if isinstance(path, keras.Model) else ""
        raise TypeError(must_be_path("path", path, hint))
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path is the HTML file to write, and {str(path)!r} does not end in .html. Pass such a path.")
    check_writable(path, "report.html")
    for model in (quantized, float_model):
        if model is not None:
            check_is_model(model)
    for name, found in (("file", file), ("float_file", float_file)):
        if found is not None and not is_path(found):
            raise TypeError(must_be_path(name, found))
        if found is not None and not Path(found).is_file():
            raise FileNotFoundError(f"There is no file {found}, which {name} names.")
    if comparison is not None and not isinstance(comparison, Comparison):
        raise TypeError(f"comparison must be a result of compare, got {type(comparison).__name__}.")
    _check_metrics(metrics or {})
    if quantized is None and (file is None or Path(file).suffix == ".tflite"):
        what = "a LiteRT file alone" if file is not None else "nothing"
        raise ValueError(f"There is {what} to report on. Pass quantized, the Keras model, or file, an .onnx file.")
    contents = gathered(quantized, float_model, data, file, float_file, runtime, comparison, latency)
    contents.metrics = metrics or {}
    if not metrics:
        contents.left_out.append('Accuracy: pass metrics, such as {"top-1 accuracy": ("91.4 %", "91.5 %")}.')
    with replacing(path) as temporary:
        temporary.write_text(page_of(contents), encoding="utf-8")
    return path


def _check_metrics(metrics: Mapping[str, tuple[Figure, Figure]]) -> None:
    for name, pair in metrics.items():
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise TypeError(f"metrics must be pairs of a float and a quantized figure, got {pair!r} for {name!r}.")
