"""Runs a file for verification, with tensors of its graph as additional outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx


@dataclass(frozen=True)
class Runtime:
    """A runtime that can run a file.

    Attributes:
        title: the name of the runtime in messages.
        run: a function of the path of a file, its inputs by name, and the names of additional tensors. It returns the
            outputs of the file in order, then the additional tensors, and raises ImportError if the runtime is not
            installed.
    """

    title: str
    run: Callable[[Path, dict[str, np.ndarray], Sequence[str]], list[np.ndarray]]


def _run_onnxruntime(path: Path, feeds: dict[str, np.ndarray], further: Sequence[str]) -> list[np.ndarray]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(_not_installed("ONNX Runtime", "onnxruntime")) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if further:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with _exposing(path, further) as exposed:
        session = onnxruntime.InferenceSession(exposed, options, providers=["CPUExecutionProvider"])
        return session.run(None, feeds)


def _run_openvino(path: Path, feeds: dict[str, np.ndarray], further: Sequence[str]) -> list[np.ndarray]:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(_not_installed("OpenVINO", "openvino")) from error
    with _exposing(path, further) as exposed:
        # By default OpenVINO may compute in bfloat16, which is less exact than Keras.
        compiled = openvino.compile_model(exposed, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(feeds)
    return [np.array(results[index]) for index in range(len(compiled.outputs))]


def _not_installed(title: str, extra: str) -> str:
    return (
        f"verify_with runs the file in {title}, which is not installed: pip install 'tensorflow-quantization[{extra}]'"
    )


@contextlib.contextmanager
def _exposing(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yields the path of a copy of the file with additional outputs, in the same directory as its external data."""
    if not names:
        yield path
        return
    model = onnx.load(path, load_external_data=False)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    with _beside(path, "exposed", model) as exposed:
        yield exposed


@contextlib.contextmanager
def without_quantizers(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yields the path of a copy of the file in which the named quantizers have no effect.

    Args:
        path: path of the file. The copy is in the same directory as its external data.
        names: names of the outputs of QuantizeLinear nodes. Readers of the dequantized tensor read the float tensor.
    """
    if not names:
        yield path
        return
    model = onnx.load(path, load_external_data=False)
    quantized = {node.output[0]: node.input[0] for node in model.graph.node if node.output[0] in names}
    exact = {n.output[0]: quantized[n.input[0]] for n in model.graph.node if n.input and n.input[0] in quantized}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = exact.get(name, name)
    with _beside(path, "without", model) as other:
        yield other


@contextlib.contextmanager
def _beside(path: Path, prefix: str, model: onnx.ModelProto) -> Iterator[Path]:
    """Yields the path of a file with `model` in the directory of `path`, and deletes the file at the end."""
    other = path.with_name(f"{prefix}_{path.name}")
    try:
        onnx.save(model, other)
        yield other
    finally:
        other.unlink(missing_ok=True)


RUNTIMES = {
    "onnxruntime": Runtime("ONNX Runtime", _run_onnxruntime),
    "openvino": Runtime("OpenVINO", _run_openvino),
}
