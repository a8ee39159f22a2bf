"""What `quantize` says of its file: its size, speed, share in integers, and how near it is to the float model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.export.litert.file import operators
from tensorflow_quantization.export.names import names_in_signature
from tensorflow_quantization.export.onnx.emission import plain_name
from tensorflow_quantization.export.verification.litert import run_file
from tensorflow_quantization.inspection.runtime import runtime_report
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches, model_inputs
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise
from tensorflow_quantization.text.tables import decibels_text, text_table
from tensorflow_quantization_cli.files import LoadedFile, interval_text, latencies, load_file

#: Runs of each file that count.
_ROUNDS = 30
_NO_LATENCY = {"milliseconds": None, "latency_ratio": None, "latency_ratio_interval": None}

#: The ratio on samples of the calibration may exceed the ratio on others by so much: 6 dB is an error twice as large.
#: Of a residual network on Fashion-MNIST it exceeds it by 0 to 3 dB with 256 samples for calibration, up to 6 with 64,
#: 4 to 10 with 16, and 14 to 24 with 4. From 40 dB on, an error of 1 %, it does not matter.
_GAP, _GOOD = 6.0, 40.0
#: Above this ratio outputs differ by float rounding only, one part in a million: no tensor in 16 bits is as near.
_UNCHANGED = 120.0
#: Outputs that differ by a smaller part of the largest are the same: float rounding depends on the place in the batch.
_SAME = 1e-5

_Run = Callable[[list[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Summary:
    """The figures of a file beside those of the float model; of a figure that cannot be had, `None`.

    Attributes:
        output: the path of the file.
        target: the runtime that the file is for.
        runtime: the runtime that computed the figures.
        held_out: whether calibration and training did not see the samples that were measured on.
        calibrated: the number of samples of the calibration.
        bytes: of the float file and of the quantized file.
        milliseconds: the latency of one sample, or of the model's fixed batch, of both; `None` also if Keras' float
            file does not run.
        latency_ratio: that of the quantized file in units of that of the float file.
        latency_ratio_interval: holds the ratio at 95 %; see `ratio_interval`.
        integer_share: of the multiply-accumulates, or, for LiteRT, of the operators; `None` also if some of them cannot
            be counted.
        dtype: of the numbers, if they are no integers.
        snr: the signal-to-noise ratio of the outputs against the float model, in decibels.
        calibration_snr: the same on samples of the calibration; `None`, too, if `snr` is of these.
        same_class: the share of samples with the same greatest output, or of the values that are the same if the only
            output holds integers; `None`, too, if no output has the shape of classes.
        nothing_measured: why there is no `snr`: the outputs do not tell; `None` if there is.
        samples: the number of samples that `snr` and `same_class` are measured on.
    """

    output: str
    target: str
    runtime: str
    held_out: bool
    calibrated: int
    bytes: tuple[int, int]
    milliseconds: tuple[float, float] | None
    latency_ratio: float | None
    latency_ratio_interval: tuple[float, float] | None
    integer_share: float | None
    dtype: str | None
    snr: float | None
    calibration_snr: float | None
    same_class: float | None
    nothing_measured: str | None
    samples: int

    @property
    def overfits(self) -> bool:
        """Whether the file is much nearer to the float model on samples of the calibration than on others."""
        if self.calibration_snr is None or self.snr is None:
            return False
        return self.calibration_snr - self.snr > _GAP and self.snr < _GOOD

    @property
    def mostly_floats(self) -> bool:
        """Whether most multiply-accumulates run in floats. `export_litert` names the operators of a `.tflite` file."""
        share = self.integer_share
        return self.target != "litert" and self.dtype is None and share is not None and share < 0.5

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as a dict for JSON; what there are two of is a dict with "float" and "quantized"."""
        pairs = {name: getattr(self, name) for name in ("bytes", "milliseconds")}
        both = {n: None if p is None else dict(zip(("float", "quantized"), p, strict=True)) for n, p in pairs.items()}
        return {**dataclasses.asdict(self), **both}

    def __str__(self) -> str:
        sizes = [f"{count / 1e6:.3g} MB" for count in self.bytes]
        rows = [["size", *sizes, f"{self.bytes[1] / self.bytes[0]:.2f} x"]]
        if self.milliseconds is not None:
            ratio = f"{self.latency_ratio:.2f} x ({interval_text(self.latency_ratio_interval)})"
            rows.append(["latency", *(f"{ms:.3g} ms" for ms in self.milliseconds), ratio])
        lines = [f"{self.output} for {self.target}, verified against Keras; figures of {self.runtime}", ""]
        lines += [text_table(("", "float", "quantized", "ratio"), rows), ""]
        if self.dtype is not None:
            lines.append(
                f"in integers      no: the numbers are {self.dtype}; the command `report` lists what runs in them"
            )
        elif self.integer_share is not None:
            counted = "operators" if self.target == "litert" else "multiply-accumulates"
            lines.append(f"in integers      {100 * self.integer_share:.1f} % of {counted}")
        else:
            lines.append(f"in integers      unknown: `report {self.output} --runtime {self.target}` tells why")
        seen = (
            "that calibration did not see" if self.held_out else "of the calibration: there were too few to spare some"
        )
        if self.snr is None:
            lines.append(f"signal-to-noise  no figure: {self.nothing_measured}")
        else:
            lines.append(f"signal-to-noise  {decibels_text(self.snr)} against float, on {self.samples} samples {seen}")
        if self.same_class is not None and self.snr is None:
            lines.append(f"same values      {100 * self.same_class:.1f} %, on {self.samples} samples {seen}")
        elif self.same_class is not None:
            lines.append(f"same class       {100 * self.same_class:.1f} % of these samples")
        return "\n".join(lines)


def measure(
    model: keras.Model,
    quantized: keras.Model,
    files: tuple[Path, Path],
    target: str,
    runtime: str,
    samples: Any,
    calibrated: Sequence[Any],
) -> dict[str, Any]:
    """Returns the figures of a `Summary`.

    Args:
        model, quantized: the Keras models.
        files: of the float model and of the quantized model.
        target: the runtime that the file is for.
        runtime: the runtime that computes the outputs, and that measures the latency if it is the target.
        samples: inputs, in the structure of the model's.
        calibrated: batches of the calibration, as many as `calibration_snr` is measured on; none if `samples` are.
    """
    graph = LayerGraph.trace(quantized).flatten().live()
    single = [array[: graph.inputs[0].shape[0] or 1] for array in model_inputs(graph, samples)]
    shapes = {tensor.name: array.shape for tensor, array in zip(graph.inputs, single, strict=True)}
    run = _runner(files[1], graph, runtime)
    return {
        **_agreement(model, graph, run, [samples]),
        "calibration_snr": _agreement(model, graph, run, calibrated)["snr"] if calibrated else None,
        **(_latency(files, graph, runtime, single) if runtime == target else _NO_LATENCY),
        "bytes": (files[0].stat().st_size, files[1].stat().st_size),
        "integer_share": _integer_share(files[1], target, shapes),
    }


def _agreement(model: keras.Model, graph: LayerGraph, run: _Run, batches: Sequence[Any]) -> dict[str, Any]:
    """How near the outputs of a file are to those of the float model; no figures if the outputs do not tell."""
    ratio, equal, seen, classes, constant, floats = SignalToNoise(), 0.0, 0, False, True, False
    first: list[np.ndarray] = []
    for arrays in (arrays for batch in batches for arrays in input_batches(graph, batch, BATCH_SIZE)):
        outputs = model.predict_on_batch(tree.pack_sequence_as(graph.input_structure, arrays))
        expected = [np.asarray(y) for y in tree.flatten(outputs)]
        seen += len(arrays[0])
        first = first or [y[:1] for y in expected]
        constant &= all(_same(y, one) for y, one in zip(expected, first, strict=True))
        for output, (exact, found) in enumerate(zip(expected, run(arrays), strict=True)):
            if not keras.backend.is_float_dtype(exact.dtype.name):
                classes |= len(expected) == 1
                equal += float(np.mean(exact == found)) * len(arrays[0])
                continue
            floats = True
            ratio.update(exact, found, output)
            if len(expected) == 1 and exact.ndim == 2 and exact.shape[1] > 1:
                classes = True
                equal += int((exact.argmax(axis=1) == found.argmax(axis=1)).sum())
    nothing = None
    if constant and seen > 1:
        nothing = f"the float model returns the same for all {seen} samples"
    elif floats and ratio.decibels > _UNCHANGED:
        nothing = "the outputs are those of the float model, so nothing that they depend on is quantized"
    same = equal / seen if classes and nothing is None else None
    if nothing is None and not floats:
        nothing = "the outputs are no floats"
    return {
        "snr": ratio.decibels if nothing is None else None,
        "same_class": same,
        "nothing_measured": nothing,
        "samples": seen,
    }


def _same(outputs: np.ndarray, first: np.ndarray) -> bool:
    """Whether the outputs for all samples are those for the first, but for float rounding."""
    outputs, first = outputs.astype(np.float64), first.astype(np.float64)
    return bool(np.abs(outputs - first).max(initial=0.0) <= _SAME * np.abs(first).max(initial=0.0))


def _latency(files: tuple[Path, Path], graph: LayerGraph, runtime: str, single: list[np.ndarray]) -> dict[str, Any]:
    calls = {}
    for name, file in zip(("float", "quantized"), files, strict=True):
        loaded = load_file(file, runtime)
        calls[name] = partial(loaded.run, _feeds(loaded, graph, single))
    if runtime == "litert" and not _runs(calls["float"]):
        return _NO_LATENCY
    of_float, of_quantized = latencies(calls, _ROUNDS)
    pair = (of_float.milliseconds, of_quantized.milliseconds)
    ratio = {"latency_ratio": of_quantized.ratio, "latency_ratio_interval": of_quantized.interval}
    return {"milliseconds": pair, **ratio}


def _runs(call: Callable[[], object]) -> bool:
    """Whether a float file runs: Keras may write operators into a `.tflite` file that only all of TensorFlow has."""
    try:
        call()
    except RuntimeError:
        return False
    return True


def _runner(path: Path, graph: LayerGraph, runtime: str) -> _Run:
    """Returns a function from the inputs of the model to its outputs in a file, both in the order of the model."""
    if runtime == "litert":
        data, names = path.read_bytes(), names_in_signature(graph)

        def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
            found = run_file(data, graph, arrays)
            return [found[name] for name in names]

        return run
    loaded = load_file(path, runtime)
    return lambda arrays: loaded.run(_feeds(loaded, graph, arrays))


def _feeds(loaded: LoadedFile, graph: LayerGraph, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns inputs by the names in a file: by the model's names if the file has these, else in the file's order."""
    by_name = dict(zip((plain_name(tensor.name) for tensor in graph.inputs), arrays, strict=True))
    if not set(loaded.inputs) <= set(by_name):
        by_name = dict(zip(loaded.inputs, arrays, strict=True))
    return {name: by_name[name].astype(dtype) for name, (_, dtype) in loaded.inputs.items()}


def _integer_share(path: Path, target: str, shapes: dict[str, tuple[int, ...]]) -> float | None:
    if target == "litert":
        floats = [is_float for _, _, is_float in operators(path.read_bytes())]
        return 1.0 - sum(floats) / max(len(floats), 1)
    try:
        return runtime_report(path, target, shapes).integer_share
    except ImportError:  # TensorRT is seldom where the file is made
        return None
