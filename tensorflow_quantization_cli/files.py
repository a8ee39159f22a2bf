"""Loads `.onnx` and `.tflite` files, of any tool, in a runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from tensorflow_quantization.export.verification.onnx_runtimes import DEFAULT_RUNTIME, RUNTIMES, is_installed
from tensorflow_quantization.export.verification.timing import interleaved, ratio_interval, summary
from tensorflow_quantization.onnx_graph.files import read_onnx, to_ir
from tensorflow_quantization.onnx_graph.metadata import target_of
from tensorflow_quantization.text.warn import without_note

_DELEGATE_NOTE = "INFO: Created TensorFlow Lite XNNPACK delegate"
#: The modules of runtimes that are named otherwise.
_MODULES = {"tensorrt": "tensorrt_rtx", "litert": "ai_edge_litert"}


class Latency(NamedTuple):
    """The latency of one of several calls that take turns.

    Attributes:
        name: of the call.
        milliseconds: the median time.
        ratio: the median of the ratios to the first call of the same round.
        interval: holds the ratio at 95 %; `None` for the first call, and for less than 6 rounds. See `ratio_interval`.
    """

    name: str
    milliseconds: float
    ratio: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class LoadedFile:
    """A file in its runtime.

    Attributes:
        inputs: by name the shape, with `None` for unknown sizes, and the dtype.
        run: a function from arrays by name to the outputs, in the order of the file.
        runtime: "onnxruntime", "openvino" or "litert".
    """

    inputs: dict[str, tuple[tuple[int | None, ...], np.dtype]]
    run: Callable[[dict[str, np.ndarray]], list[np.ndarray]]
    runtime: str

    def random_inputs(self, batch: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Returns normally distributed inputs, and zeros for integers, which may be indices.

        Args:
            batch: the size of a first axis of unknown size.
            shapes: the shapes of inputs with other unknown sizes.

        Raises:
            ValueError: a size is unknown, or a shape is not that of the file.
        """
        rng = np.random.default_rng(0)
        found = {}
        for name, (shape, dtype) in self.inputs.items():
            wanted = shapes.get(name, tuple(batch if i == 0 and d is None else d for i, d in enumerate(shape)))
            sizes = [size for size in wanted if size is not None]
            if len(sizes) < len(wanted):
                shown = "x".join("?" if size is None else str(size) for size in wanted)
                raise ValueError(f"Input {name!r} has unknown sizes, {shown}. Pass --input-shape {name}:1x224x224x3.")
            if len(wanted) != len(shape) or any(d not in (None, w) for d, w in zip(shape, wanted, strict=True)):
                raise ValueError(f"Input {name!r} has the shape {shape}, and {wanted} does not fit.")
            found[name] = rng.normal(size=sizes).astype(dtype) if dtype.kind == "f" else np.zeros(sizes, dtype)
        return found


def load_file(path: str | os.PathLike, runtime: str | None = None) -> LoadedFile:
    """Loads a file.

    Args:
        path: the path of an `.onnx` or `.tflite` file.
        runtime: for an `.onnx` file, "onnxruntime" or "openvino"; `None` (default): the target in the file, if it is
            one of these and installed, else ONNX Runtime.

    Raises:
        ValueError: the runtime does not load the file.
        ImportError: the runtime is not installed.
    """
    path = Path(path)
    # The errors of `runtime_of` say what is wrong with a file.
    runtime = "litert" if path.suffix == ".tflite" else runtime or runtime_of(path, tuple(RUNTIMES))
    require(runtime)
    try:
        return _load_litert(path) if runtime == "litert" else _load_onnx(path, runtime)
    except Exception as error:  # runtimes raise errors of many classes
        raise ValueError(f"{path} cannot be loaded to run it: {str(error).strip().splitlines()[-1]}") from error


def runtime_of(path: str | os.PathLike, names: tuple[str, ...]) -> str:
    """Returns the target in an `.onnx` file, if it is one of `names` and installed; else ONNX Runtime."""
    target = target_of(to_ir(read_onnx(path), path))
    return target if target in names and _is_here(target) else DEFAULT_RUNTIME


def require(runtime: str) -> None:
    """Raises: ImportError: the runtime is not installed."""
    if not _is_here(runtime):
        raise ImportError(f"{runtime} is not installed: pip install 'tensorflow-quantization[{runtime}]'")


def _is_here(runtime: str) -> bool:
    return is_installed(_MODULES.get(runtime, runtime))


def latencies(calls: Mapping[str, Callable[[], object]], rounds: int) -> list[Latency]:
    """Measures calls in turns, so that a busy machine slows all of them down alike.

    Args:
        calls: by name; the first is what the others are compared with.
        rounds: how many runs of each count.
    """
    with without_note(_DELEGATE_NOTE):  # LiteRT writes it at the first run
        for call in calls.values():
            call()
    seconds = interleaved(calls, rounds, lead=1)
    base = next(iter(seconds.values()))
    intervals = [None if s is base else ratio_interval(s, base) for s in seconds.values()]
    return [Latency(*row, interval) for row, interval in zip(summary(seconds), intervals, strict=True)]


def interval_text(interval: tuple[float, float] | None) -> str:
    """Returns an interval of a ratio in words, and whether it leaves open which is faster."""
    if interval is None:
        return "unknown: less than 6 rounds"
    low, high = interval
    return f"{low:.2f} to {high:.2f}" + (", no difference measurable" if low <= 1.0 <= high else "")


def _load_onnx(path: Path, runtime: str) -> LoadedFile:
    graph = read_onnx(path).graph
    constants = {constant.name for constant in graph.initializer}
    inputs = {}
    for value in graph.input:
        if value.name not in constants:
            tensor = value.type.tensor_type
            sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
            inputs[value.name] = (sizes, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return LoadedFile(inputs, RUNTIMES[runtime].load(path, []), runtime)


def _load_litert(path: Path) -> LoadedFile:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    signatures = interpreter.get_signature_list()
    if not signatures:
        raise ValueError("it has no signature; convert the model with a newer TensorFlow.")
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    inputs = {
        name: (tuple(None if d < 0 else int(d) for d in detail["shape_signature"]), np.dtype(detail["dtype"]))
        for name, detail in runner.get_input_details().items()
    }
    return LoadedFile(inputs, lambda feeds: list(runner(**feeds).values()), "litert")
