"""`gathered`: the contents of a report, from models and files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from tensorflow_quantization._version import __version__
from tensorflow_quantization.comparison import Comparison, compare
from tensorflow_quantization.export import export_onnx
from tensorflow_quantization.export.verification.latency import RUNS, median_latencies
from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES as RUNNING
from tensorflow_quantization.inspection import describe
from tensorflow_quantization.inspection.checks import check_onnx
from tensorflow_quantization.inspection.describe import named_quantizers
from tensorflow_quantization.inspection.runtime import runtime_report
from tensorflow_quantization.inspection.runtime.macs import static_shapes, with_input_shapes
from tensorflow_quantization.inspection.runtime.runtime_report import RUNTIMES
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.onnx_graph.files import read_onnx, to_ir, with_shapes
from tensorflow_quantization.onnx_graph.metadata import target_of
from tensorflow_quantization.reporting.contents import Contents
from tensorflow_quantization.reporting.histograms import activation_histograms, weight_histogram
from tensorflow_quantization.reporting.network import network_of_file, network_of_model

AnyPath = str | os.PathLike


def gathered(
    quantized: keras.Model | None,
    float_model: keras.Model | None,
    data: Any,
    file: AnyPath | None,
    float_file: AnyPath | None,
    runtime: str | None,
    comparison: Comparison | None,
    latency: bool,
) -> Contents:
    """Returns what a report shows for these arguments of `html_report`, without the metrics."""
    if data is not None and iter(data) is data:  # the comparison and the histograms read it
        data = list(data)
    contents = Contents(quantized.name if quantized is not None else Path(file or "").name)
    missing = contents.left_out
    onnx_file = None if file is None or Path(file).suffix == ".tflite" else Path(file)
    if onnx_file is not None:
        runtime = _look_at_file(contents, onnx_file, runtime)
    elif file is None:
        missing.append("What ran in integers, the rules of the runtime, size and latency: pass file, an exported file.")
    if quantized is None:
        missing.append("Quantizers of each layer: pass quantized, the Keras model.")
    else:
        _look_at_model(contents, quantized, data)
    arguments = {"quantized": quantized, "float_model": float_model, "data": data}
    absent = [name for name, argument in arguments.items() if argument is None]
    if comparison is None and not absent:
        runs = runtime if onnx_file is not None and runtime in RUNNING else None
        comparison = compare(float_model, quantized, data, file=file, runtime=runs)
    contents.comparison = comparison
    if comparison is None:
        missing.append(f"Signal-to-noise of layers: pass {' and '.join(absent)}, or comparison, a result of compare.")
    if data is None:
        missing.append("Distributions of activations: pass data, samples as in use.")
    if file is not None:
        with _float_path(float_model if onnx_file is not None else None, float_file) as float_path:
            if float_path is None:
                missing.append("Size and latency of float: pass float_file, or float_model for an ONNX file.")
            contents.sizes = (None if float_path is None else _size(float_path), _size(Path(file)))
            if latency:
                _measure(contents, onnx_file, float_path, runtime)
    ran_in = [contents.runtime.runtime] if contents.runtime is not None else []
    contents.versions = ", ".join([f"tensorflow_quantization {__version__}", f"Keras {keras.__version__}", *ran_in])
    return contents


def _look_at_file(contents: Contents, path: Path, runtime: str | None) -> str | None:
    """Sets the network, what the runtime executes, and the findings. Returns the name of the runtime that was asked.

    Raises:
        ValueError: the file is not valid, or there is no such runtime.
        ImportError: `runtime` is not installed.
    """
    model = to_ir(with_shapes(read_onnx(path)), path)
    chosen = runtime or next((name for name in (target_of(model), "onnxruntime") if _is_installed(name)), None)
    contents.check = check_onnx(path, runtime)
    if chosen is None:
        contents.left_out.append("What ran in integers: no runtime is installed; pip install onnxruntime.")
    elif runtime is not None:
        contents.runtime = runtime_report(path, runtime)
    else:
        try:
            contents.runtime = runtime_report(path, chosen)
        except ValueError as error:
            contents.left_out.append(f"What ran in integers: {error}")
    contents.network = network_of_file(model, contents.runtime)
    return chosen


def _look_at_model(contents: Contents, quantized: keras.Model, data: Any) -> None:
    """Sets the description, the histograms, and the network if it is not that of a file."""
    graph = LayerGraph.trace(quantized).flatten()
    description = contents.description = describe(quantized)
    contents.network = contents.network or network_of_model(graph, description)
    contents.network.find_layers(graph)
    observes = any(quantizer.range is not None for layer in description for quantizer in layer.quantizers)
    values = activation_histograms(quantized, data) if observes and data is not None else {}
    for call in graph.calls:
        contents.histograms[call.path] = [
            values.get(id(quantizer)) if weight is None else weight_histogram(weight)
            for _, quantizer, weight in named_quantizers(call.operation)
        ]


def _is_installed(runtime: str | None) -> bool:
    """Whether it is a runtime that `runtime_report` can ask."""
    try:
        return runtime in RUNTIMES and bool(RUNTIMES[runtime].installed_version())
    except ImportError:
        return False


@contextlib.contextmanager
def _float_path(float_model: keras.Model | None, float_file: AnyPath | None) -> Iterator[Path | None]:
    """Yields the path of the float file, exported for the time of the context if there is only a model."""
    if float_file is not None or float_model is None:
        yield None if float_file is None else Path(float_file)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield export_onnx(float_model, Path(folder) / "float.onnx")


def _size(path: Path) -> int:
    """The bytes of a file, and of its weights in other files."""
    beside: set[str] = set()
    if path.suffix == ".onnx":
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        beside = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return sum(found.stat().st_size for found in (path, *(path.parent / name for name in beside)))


def _measure(contents: Contents, path: Path | None, float_path: Path | None, runtime: str | None) -> None:
    """Sets the latencies of the quantized and the float file, or says why not."""
    if path is None or runtime not in RUNNING or not _is_installed(runtime):
        titles = " and ".join(known.title for known in RUNNING.values())
        contents.left_out.append(f"Latency: an ONNX file is measured, in {titles}.")
        return
    paths = [path] if float_path is None or float_path.suffix == ".tflite" else [path, float_path]
    try:
        seconds = median_latencies(runtime, [(path, _noise(path)) for path in paths])
    except ValueError as error:
        contents.left_out.append(f"Latency: {error}")
        return
    contents.latencies = (seconds[1] if len(seconds) > 1 else None, seconds[0])
    contents.latency_of = f"one sample in {RUNNING[runtime].title}, the median of {RUNS} runs"


def _noise(path: Path) -> dict[str, np.ndarray]:
    """One sample for each input of a file: noise, or zeros for integers, which may be indices."""
    model = to_ir(with_input_shapes(read_onnx(path)), path)
    dtypes = {value.name: value.dtype.numpy() for value in model.graph.inputs if value.dtype is not None}
    noise = np.random.default_rng(0)
    return {
        name: (noise.normal(size=shape) if np.issubdtype(dtypes[name], np.floating) else np.zeros(shape)).astype(
            dtypes[name]
        )
        for name, shape in static_shapes(model).items()
    }
