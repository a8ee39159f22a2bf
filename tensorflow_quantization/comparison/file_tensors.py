"""`FileTensors`: the quantized tensors of a file in its runtime, beside those of Keras."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.comparison.findings import Finding, Kind
from tensorflow_quantization.comparison.origin import check_origin, stored_in_litert, stored_in_onnx
from tensorflow_quantization.comparison.statistics import Difference
from tensorflow_quantization.export.litert.convert import convert
from tensorflow_quantization.export.litert.exporter import check_quantized
from tensorflow_quantization.export.litert.function import make_function
from tensorflow_quantization.export.names import names_in_signature, names_of_outputs
from tensorflow_quantization.export.onnx.exporter import lower_with_passes
from tensorflow_quantization.export.verification.keras_with_integers import run_with_integers
from tensorflow_quantization.export.verification.litert import run_file
from tensorflow_quantization.export.verification.onnx import feeds, integers_in_keras, load_onnx
from tensorflow_quantization.export.verification.onnx_runtimes import (
    DEFAULT_RUNTIME,
    RUNTIMES,
    is_installed,
    require_installed,
)
from tensorflow_quantization.export.verification.processor import saturates
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise, decibels
from tensorflow_quantization.onnx_graph.files import check_is_path, read_onnx, to_ir
from tensorflow_quantization.onnx_graph.metadata import target_of
from tensorflow_quantization.onnx_graph.queries import layer_in
from tensorflow_quantization.quantizers import ActivationQuantizer, numerics
from tensorflow_quantization.text.messages import must_be_one_of, shortened
from tensorflow_quantization.wrappers import float_path

Array = np.ndarray
#: By the ids of a call and of a quantizer: integers, and the points of the Keras tensor that the file computes.
Integers = dict[tuple[int, int], tuple[Array, tuple[slice, ...]]]
#: Runs a file on one array per input: its outputs in the model's order, and the integers of its quantizers.
RunFile = Callable[[list[Array]], tuple[list[Array], Integers]]


class FileTensors:
    """Runs a file batch by batch, and compares its tensors with those of Keras.

    Args:
        quantized: the model that the file was written from.
        path: the path of an `.onnx` or `.tflite` file.
        runtime: see `compare`.

    Attributes:
        differences: by the id of a quantizer, how the file's tensor differs from the float model's.
        steps: by the id of a quantizer, the largest distance of an integer of the file from the value that Keras
            computes from the integers before it. Half a step is rounding.

    Raises:
        ValueError: the file is not from this model, or `runtime` does not run it.
        ImportError: the runtime is not installed.
    """

    def __init__(self, quantized: keras.Model, path: str | os.PathLike, runtime: str | None):
        check_is_path(path)
        model_graph = LayerGraph.trace(quantized)
        self._path = Path(path)
        if self._path.suffix == ".tflite":
            if runtime not in (None, "litert"):
                raise ValueError(f"runtime={runtime!r} does not run {self._path}; leave it out.")
            self._runtime, self._title = "litert", "LiteRT"
            self._graph, self._run = _litert(model_graph, self._path)
        else:
            self._runtime, self._graph, self._run = _onnx(model_graph, self._path, runtime)
            self._title = RUNTIMES[self._runtime].title
        self.differences: dict[int, Difference] = {}
        self.steps: dict[int, float] = {}
        self._tensors: dict[int, deque[tuple[Array, tuple[slice, ...]]]] = {}
        self._of_file: dict[int, float] = defaultdict(float)
        self._rounding: dict[int, float] = defaultdict(float)
        self._paths: dict[int, str] = {}
        self._other_shape = ""
        self._of_outputs, self._quantization = SignalToNoise(), SignalToNoise()

    def run(self, batch: list[Array], quantized: list[Array], exact: list[Array]) -> None:
        """Runs the file on a batch; `update` then takes the tensors.

        Args:
            batch: an array for each input.
            quantized, exact: the outputs of the quantized model and of the float model.
        """
        outputs, integers = self._run(batch)
        self._tensors = defaultdict(deque)
        run_with_integers(self._graph, batch, partial(self._compare, integers))
        if self._other_shape:
            raise ValueError(
                f"{str(self._path)!r} was not written from {self._graph.model.name!r}: {self._other_shape}. Export the "
                "model again."
            )
        for index, (found, expected, without_error) in enumerate(zip(outputs, quantized, exact, strict=True)):
            self._of_outputs.update(expected, found.reshape(expected.shape), index)
            self._quantization.update(without_error, expected, index)

    def update(self, quantizer: ActivationQuantizer, exact: Array, axis: int | None) -> None:
        """Adds the next tensor of the file at a quantizer, for what the quantizer gets in the float model."""
        waiting = self._tensors.get(id(quantizer))
        if waiting:
            found, points = waiting.popleft()
            self.differences.setdefault(id(quantizer), Difference(axis)).update(exact[points], found)

    @property
    def snr(self) -> float:
        """How well the outputs of the file and of the quantized Keras model agree, in dB."""
        return self._of_outputs.decibels

    def finding(self) -> Finding | None:
        """Returns where the file departs from Keras most, if it adds more noise to the outputs than quantization did.

        ONNX Runtime runs without optimizations when all tensors are outputs. So a fault of its integer kernels shows at
        the outputs only, and no layer is named.
        """
        noise, quantization = self._of_outputs.noise, self._quantization.noise
        if not noise > quantization:
            return None
        # A quantizer's tensor, computed from the file's tensors before it: the noise of the file over that of rounding.
        excess = {key: error / max(self._rounding[key], 1e-30) for key, error in self._of_file.items() if error > 0}
        worst = max((key for key in excess if excess[key] > 1), key=lambda key: excess[key], default=None)
        layer = "all layers" if worst is None else self._paths[worst]
        far = "" if worst is None else f" Its integers are up to {self.steps[worst]:.3g} steps from those of Keras."
        problem = f"{self._title} computes something else than Keras: the outputs agree to {self.snr:.1f} dB.{far}"
        remedy = "Export the model again: the file may be older than its weights. If this stays, please report it."
        if self._runtime in RUNTIMES and saturates(self._runtime):
            remedy = "This processor has no VNNI, so the runtime saturates: quantize_model(model, weight_bits=7)."
        gain = float(decibels(noise + quantization, quantization))
        return Finding(layer, Kind.RUNTIME, "file", (), self.snr, gain, problem, remedy)

    def _compare(self, integers: Integers, call: Call, quantizer: ActivationQuantizer, exact: Array) -> Array:
        """Returns the integers of the file at a quantizer, and those of Keras at points that the file lacks."""
        key, scheme = id(quantizer), quantizer.scheme
        scale, zero_point = (p.astype(np.float32) for p in quantizer.parameters())
        whole = numerics.quantize(exact, scale, zero_point, scheme, np)
        array, points = integers.get((id(call), key), (None, ()))
        if array is None:  # the file does not have this quantizer
            return whole
        if array.size != exact[points].size:
            # Raised by `run`: Keras would wrap it here.
            shapes = f"has shape {array.shape}, and the model's {exact[points].shape}"
            self._other_shape = self._other_shape or f"its tensor of {float_path(call.path)!r} {shapes}"
            return whole
        found = array.reshape(exact[points].shape).astype(np.float32)
        wanted = np.clip(exact[points] / scale + zero_point, scheme.qmin, scheme.qmax)
        self._paths.setdefault(key, float_path(call.path))
        self.steps[key] = max(self.steps.get(key, 0.0), float(np.abs(found - wanted).max(initial=0.0)))
        self._of_file[key] += float(((found - whole[points]).astype(np.float64) ** 2).sum())
        self._rounding[key] += float(((whole[points] - wanted).astype(np.float64) ** 2).sum())
        self._tensors[key].append((numerics.dequantize(found, scale, zero_point), points))
        whole[points] = found
        return whole


def _onnx(model_graph: LayerGraph, path: Path, runtime: str | None) -> tuple[str, LayerGraph, RunFile]:
    proto = read_onnx(path)
    file = to_ir(proto, path)
    target = target_of(file)
    runtime = runtime or (target if target in RUNTIMES and is_installed(target) else DEFAULT_RUNTIME)
    if runtime not in RUNTIMES:
        raise ValueError(must_be_one_of("runtime", RUNTIMES, runtime))
    require_installed(runtime)
    opset = next((o.version for o in proto.opset_import if not o.domain), None)
    tensors = {name for node in proto.graph.node for name in node.output}
    shapes = _shapes_of_inputs(proto)
    flat, output_names = model_graph.flatten().live(), names_of_outputs(model_graph)
    for layout in ("channels_last", "channels_first"):
        graph, lowered = lower_with_passes(flat, output_names, opset, layout, target, "float32")
        if shapes == {v.onnx.name: [d if isinstance(d, int) else None for d in v.stored_shape] for v in lowered.inputs}:
            break
    missing = [q.call.path for q in lowered.quantized if q.integers.onnx.name not in tensors]
    stored, of_file = stored_in_onnx(lowered.builder.graph), stored_in_onnx(file.graph)
    more = [layer_in(name) for name in of_file.quantized if name not in stored.quantized]
    if missing or more or [o.name for o in proto.graph.output] != lowered.output_names:
        what = f"not the quantizers of {shortened(missing)}" if missing else "other outputs"
        what = f"other quantizers, in {shortened(more)}" if more and not missing else what
        raise ValueError(
            f"{path} was not written from {model_graph.model.name!r}: it has {what}. Pass the model that "
            "export_onnx got, and the file as it was written."
        )
    check_origin(path, graph, stored, of_file)
    optimized, exposed = RUNTIMES[runtime].load(path, []), load_onnx(path, lowered, runtime)

    def run(inputs: list[Array]) -> tuple[list[Array], Integers]:
        return optimized(feeds(lowered, inputs)), integers_in_keras(lowered, exposed(inputs))

    return runtime, graph, run


def _shapes_of_inputs(proto: Any) -> dict[str, list[int | None]]:
    constants = {tensor.name for tensor in proto.graph.initializer}
    return {
        value.name: [d.dim_value or None for d in value.type.tensor_type.shape.dim]
        for value in proto.graph.input
        if value.name not in constants
    }


def _litert(model_graph: LayerGraph, path: Path) -> tuple[LayerGraph, RunFile]:
    graph = model_graph.flatten().live()
    check_quantized(graph)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    data = path.read_bytes()
    function = make_function(graph, expose=True)
    exposed, names = convert(function), names_in_signature(graph)
    check_origin(path, graph, stored_in_litert(exposed), stored_in_litert(data))

    def run(inputs: list[Array]) -> tuple[list[Array], Integers]:
        outputs, results = run_file(data, graph, inputs), run_file(exposed, graph, inputs)
        integers: Integers = {}
        for index, (call, quantizer) in enumerate(function.quantized):
            scale, zero_point = (p.astype(np.float32) for p in quantizer.parameters())
            array = np.round(results[f"quantized_{index}"] / scale) + zero_point
            integers[id(call), id(quantizer)] = array, (slice(None),) * array.ndim
        return [outputs[name] for name in names], integers

    return graph, run
