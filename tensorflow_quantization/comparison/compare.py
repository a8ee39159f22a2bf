"""`compare`: which layer of a quantized model is guilty, and what to do about it."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.accuracy.equalized_models import equalized_model
from tensorflow_quantization.comparison.findings import (
    Evidence,
    Finding,
    Kind,
    dead_channels,
    finding,
    quantized_tensor,
    ranked,
)
from tensorflow_quantization.comparison.remedies import AS_IS, remedies, variant
from tensorflow_quantization.comparison.result import Comparison, LayerComparison
from tensorflow_quantization.comparison.spread import Spread
from tensorflow_quantization.comparison.statistics import Difference, Range, Usage, by_channel
from tensorflow_quantization.model.finite import check_finite_outputs
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.model.interpreter import (
    CallFunction,
    Computed,
    Interpreter,
    arguments_at_inference,
    compute,
    infer,
)
from tensorflow_quantization.model.precision import computing_in_float32, in_float32
from tensorflow_quantization.model.side_by_side import SideBySide
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.noise.output_noise import OutputNoise, before_saturation, with_float_outputs
from tensorflow_quantization.noise.parts import (
    FloatTwin,
    Part,
    parts_of,
)
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise, decibels
from tensorflow_quantization.quantizers.observing import observing
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.wrappers import activation_quantizers_in, float_path, inner_layer, weight_quantizers_in

if TYPE_CHECKING:
    from tensorflow_quantization.comparison.file_tensors import FileTensors

#: Without its quantizers, the outputs of the quantized model may differ from the float model's by this part of their
#: largest value: float rounding, as in the verification of files.
_TOLERANCE = 1e-4
_ADVICE = "Pass the float model that quantize_model got."


@suggests_arguments
def compare(
    float_model: keras.Model,
    quantized: keras.Model,
    data: Any,
    *,
    file: str | os.PathLike | None = None,
    runtime: str | None = None,
) -> Comparison:
    """Compares a quantized model with its float model, layer by layer, and names the guilty layer.

    The signal-to-noise ratio of the outputs, as the models return them, is measured over all data; where they are
    integers, as after an argmax, the floats before it count. So are two errors of each layer: of its output in the
    quantized model, where the errors of all layers before add up, and its own, for the inputs of the float model. Then
    each quantizer and each layer's weights are put into the float model alone, on 32 samples from all over the data:
    the layers are ranked by the noise at the network's output. For the parts with more noise than the mean, remedies
    are tried in the same way. A finding is a remedy that at least halves the noise of its part. Layers are measured
    without a softmax, sigmoid or tanh that computes an output.

    The memory does not grow with the number of batches. The time is that of about n runs of the float model, operation
    by operation, on 32 samples for n quantized layers, and of five such runs on all data.

    Examples:
        >>> quantized = quantize_model(model, target="onnxruntime")
        >>> report = compare(model, calibrate(quantized, images, verbose=0), images)
        >>> report["conv"].own_snr > 30
        True
        >>> calibrate(quantized, images / 255, verbose=0).name == model.name  # forgot to preprocess
        True
        >>> report = compare(model, quantized, images)
        >>> report.worst[0].layer, report.worst[0].kind.value
        ('image', 'input')

    Args:
        float_model: the model that `quantize_model` or `post_training_quantize` got; after `equalize`, and after
            `post_training_quantize` in another process, the result of `equalize` with the same arguments.
        quantized: the quantized model, calibrated or trained.
        data: samples as in use, not the calibration set: arrays as `model.predict` takes them, or data that yields
            batches, see `calibrate`. Of (x, y) pairs only x is used.
        file: the path of a file that `export_onnx` or `export_litert` wrote from `quantized`. The runtime's own tensors
            are compared, too. `None` (default): only Keras models are compared.
        runtime: the runtime that runs an ONNX file, "onnxruntime" or "openvino". `None` (default): the target of the
            file, if it is one of these and installed, else ONNX Runtime.

    Returns:
        A `Comparison`: print it, or read `.worst`, a list of `Finding`, and `.layers`.

    Raises:
        TypeError: a model is no `keras.Model`.
        ValueError: `quantized` was not made from `float_model`, has no quantizers, `data` does not fit its inputs or is
            empty, values are NaN or infinite (the message names the layer or the output), or the file was not written
            from `quantized` as it is now.
        ImportError: the runtime of `file` is not installed.
    """
    check_pair(float_model, quantized)
    float_model = equalized_model(quantized, float_model)
    whole, reference = (LayerGraph.trace(model).flatten().live() for model in (quantized, float_model))
    graph, reference = with_float_outputs(whole), with_float_outputs(reference)
    if not any(activation_quantizers_in(c.operation) or weight_quantizers_in(c.operation) for c in graph.calls):
        raise ValueError(f"Model {quantized.name!r} has no quantizers. Pass the result of quantize_model.")
    twin = FloatTwin(graph, reference)

    operations = [call.operation for call in [*graph.calls, *reference.calls]]
    with computing_in_float32([graph.model, reference.model, *operations]):
        batches = iter(input_batches(graph, data, BATCH_SIZE, "data"))
        first = next(batches, None)
        if first is None:
            raise ValueError("data holds no batch. Pass at least one sample; a generator can be read once only.")
        _check_twin(graph, reference, twin, in_float32(_first_samples(graph, first)))
        tensors = _file_tensors(quantized, file, runtime)
        measured = _Measured(graph, twin, tensors)
        side_by_side = SideBySide(graph, graph, [(call, call) for call in graph.calls])
        output, spread, count = SignalToNoise(), Spread(graph, BATCH_SIZE), 0
        for batch in itertools.chain([first], batches):
            outputs, exact = (_outputs(graph, batch, function) for function in (compute, twin.compute))
            if tensors is not None:
                returned = [outputs, exact]
                if whole is not graph:
                    returned = [_outputs(whole, batch, function) for function in (compute, twin.compute)]
                tensors.run(batch, *returned)
            with before_saturation(graph):
                side_by_side.run(in_float32(batch), measured.compare, twin.compute)
            check_finite_outputs(reference, exact)
            for index, (one, other) in enumerate(zip(exact, outputs, strict=True)):
                output.update(one, other, index)
            spread.add(batch)
            count += len(batch[0])
        samples = in_float32(spread.samples())
        with before_saturation(graph):
            evidence = _evidence(twin, measured, OutputNoise(graph, twin, samples))
    layers = list(_layers(measured, evidence))
    total = sum(e.noise[AS_IS] for e in evidence)
    worst = ranked([found for e in evidence if (found := finding(e, twin)) is not None], total)
    worst += _dead(measured, {(f.layer, f.kind) for f in worst})
    of_file = tensors.finding() if tensors is not None else None
    if of_file is not None:
        worst.insert(0, of_file)  # it adds more noise than all parts together
    file_snr = tensors.snr if tensors is not None else None
    return Comparison(float_model.name, layers, worst, output.decibels, file_snr, count, len(samples[0]))


def check_pair(float_model: keras.Model, quantized: keras.Model) -> None:
    """Checks, without data, that two models may belong together: then data that fits one of them fits both.

    Raises:
        TypeError: a model is no `keras.Model`.
        ValueError: their inputs or outputs have other shapes.
    """
    for name, model in (("float_model", float_model), ("quantized", quantized)):
        if not isinstance(model, keras.Model):
            raise TypeError(f"{name} must be a keras.Model, got {type(model).__name__}.")
    graphs = [LayerGraph.trace(model) for model in (quantized, float_model)]
    for what in ("inputs", "outputs"):
        shapes = [[tensor.shape for tensor in getattr(graph, what)] for graph in graphs]
        if shapes[0] != shapes[1]:
            texts = [", ".join(map(str, of_model)) for of_model in shapes]
            raise ValueError(
                f"{quantized.name!r} was not made from {float_model.name!r}: its {what} have the shapes {texts[0]}, "
                f"the float model's {texts[1]}. {_ADVICE}"
            )


def _outputs(graph: LayerGraph, batch: list[np.ndarray], call_function: CallFunction) -> list[np.ndarray]:
    return [float32_array(y) for y in tree.flatten(Interpreter(graph).run(in_float32(batch), call_function))]


def _file_tensors(quantized: keras.Model, file: Any, runtime: str | None) -> FileTensors | None:
    if file is None:
        if runtime is not None:
            raise ValueError(f"runtime={runtime!r} runs nothing without file. Pass the path of a file, too.")
        return None
    from tensorflow_quantization.comparison.file_tensors import FileTensors  # loads the ONNX libraries

    return FileTensors(quantized, file, runtime)


class _Measured:
    """What is measured over all batches, by the ids of operations and quantizers."""

    def __init__(self, graph: LayerGraph, twin: FloatTwin, tensors: FileTensors | None):
        self.tensors = tensors
        self.parts: dict[int, list[Part]] = {}
        self.accumulated: dict[int, Difference] = {}
        self.own: dict[int, Difference] = {}
        self.usage: dict[int, Usage] = {}
        self.inputs: dict[int, Range] = {}
        self._channels_first = any(
            getattr(inner_layer(c.operation), "data_format", None) == "channels_first" for c in graph.calls
        )
        widths: dict[int, set[int | None]] = defaultdict(set)
        for call in graph.calls:
            shape = call.outputs[0].shape
            widths[id(call.operation)].add(shape[self._axis_of(len(shape))] if shape else 1)
        # Calls of a layer whose channels are not the same.
        self._merged = {key for key, found in widths.items() if len(found) > 1}
        for call in graph.calls:
            key = id(call.operation)
            if key not in self.parts and (parts := parts_of(call, twin)):
                self.parts[key] = parts
                axis = self._axis(call, call.outputs[0])
                self.accumulated[key], self.own[key] = (Difference(axis) for _ in range(2))
                self.inputs[key] = Range()
                for part in parts:
                    if part.quantizer is not None:
                        self.usage[id(part.quantizer)] = Usage(part.quantizer, self._axis(call, quantized_tensor(part)))

    def compare(self, quantized: Computed, exact: Computed) -> None:
        """Adds a call of the quantized model and of the float model."""
        call, key = exact.call, id(exact.call.operation)
        if key not in self.parts:
            return
        expected = _float_array(exact.outputs[0], call, "The float model")
        self.accumulated[key].update(expected, _float_array(quantized.outputs[0], call, "The quantized model"))
        values = {id(t): value for t, value in zip(call.inputs, exact.inputs, strict=True)}
        args, kwargs = arguments_at_inference(call, lambda tensor: values[id(tensor)])
        quantizers = activation_quantizers_in(call.operation)
        with observing({q: self._recording(q) for q in quantizers}):
            outputs = infer(call.operation, *args, **kwargs)
        self.own[key].update(expected, float32_array(tree.flatten(outputs)[0]))
        self.inputs[key].update(by_channel(float32_array(exact.inputs[0]), self._axis(call, call.inputs[0])))

    def _recording(self, quantizer: Any) -> Any:
        def record(x: Any) -> Any:
            usage, exact = self.usage[id(quantizer)], float32_array(x)
            usage.update(exact)
            if self.tensors is not None:
                self.tensors.update(quantizer, exact, usage.axis)
            with observing({quantizer: None}):
                return quantizer(x)

        return record

    def _axis(self, call: Call, tensor: Tensor) -> int | None:
        """The channel axis of a tensor that a call reads or returns; `None` if its calls have other channels."""
        return None if id(call.operation) in self._merged else self._axis_of(len(tensor.shape))

    def _axis_of(self, rank: int) -> int:
        return 1 if self._channels_first and rank > 2 else -1


def _float_array(x: Any, call: Call, whose: str) -> np.ndarray:
    array = float32_array(x)
    if not np.isfinite(array).all():
        raise ValueError(
            f"{whose} has values that are NaN or infinite after {float_path(call.path)!r}. Check the data, and the "
            "weights of this layer and of the layers before it."
        )
    return array


def _first_samples(graph: LayerGraph, batch: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the first samples of a batch; the whole batch if the model has a fixed batch size."""
    if any(t.shape[0] is not None for t in graph.inputs):
        return batch
    return [array[:BATCH_SIZE] for array in batch]


def _check_twin(graph: LayerGraph, reference: LayerGraph, twin: FloatTwin, samples: list[Any]) -> None:
    """Raises: ValueError: without its quantizers, the quantized model is not the float model."""
    outputs = [Interpreter(g).run(samples, *rest) for g, rest in ((graph, (twin.compute,)), (reference, ()))]
    for got, expected in zip(*map(tree.flatten, outputs), strict=True):
        got, expected = float32_array(got), float32_array(expected)
        # Values that are not finite are reported with the layer that computes them first.
        if np.isfinite(expected).all() and np.abs(got - expected).max() > _TOLERANCE * np.abs(expected).max():
            raise ValueError(
                f"{graph.model.name!r} was not made from {reference.model.name!r}: their layers differ in more than "
                f"quantizers and weights. {_ADVICE}"
            )


def _evidence(twin: FloatTwin, measured: _Measured, noise: OutputNoise) -> list[Evidence]:
    """Puts each part into the float model alone; tries remedies for the parts that matter.

    Those are parts with more noise than the mean, and parts that lose half of what the outputs tell about the samples.
    """
    parts = [part for found in measured.parts.values() for part in found]
    alone = noise.of({part: variant(part, twin) for part in parts})
    least = min(float(np.mean([alone[part] for part in parts])), noise.variation / 2)
    trials = {
        (part, name): trial
        for part in parts
        if alone[part] > 0 and alone[part] >= least
        for name, trial in remedies(part, twin, _usage(measured, part), measured.inputs[id(part.call.operation)])
    }
    mended = noise.of(trials)
    found = []
    for part in parts:
        by_name = {AS_IS: alone[part], **{name: value for (other, name), value in mended.items() if other is part}}
        key = id(part.call.operation)
        found.append(Evidence(part, by_name, measured.own[key], measured.inputs[key], _usage(measured, part)))
    return found


def _usage(measured: _Measured, part: Part) -> Usage | None:
    return None if part.quantizer is None else measured.usage[id(part.quantizer)]


def _dead(measured: _Measured, known: set[tuple[str, Kind]]) -> Iterator[Finding]:
    for key, parts in measured.parts.items():
        found = dead_channels(parts[0].call, measured.own[key])
        if found is not None and (found.layer, found.kind) not in known:
            known.add((found.layer, found.kind))
            yield found


def _layers(measured: _Measured, evidence: list[Evidence]) -> Iterator[LayerComparison]:
    total = sum(e.noise[AS_IS] for e in evidence)
    for key, parts in measured.parts.items():
        call, own, accumulated = parts[0].call, measured.own[key], measured.accumulated[key]
        noise = sum(e.noise[AS_IS] for e in evidence if e.part.call is call)
        usages = [measured.usage[id(part.quantizer)] for part in parts if part.quantizer is not None]
        yield LayerComparison(
            parts[0].path,
            type(inner_layer(call.operation)).__name__,
            float(decibels(1.0, noise)),
            noise / total if total else 0.0,
            accumulated.snr,
            own.snr,
            tuple(map(float, own.channel_snr)),
            accumulated.cosine,
            max((u.saturation for u in usages), default=0.0),
            max((u.dead_range for u in usages), default=0.0),
            own.bias,
            *_in_the_file(measured, usages),
        )


def _in_the_file(measured: _Measured, usages: list[Usage]) -> tuple[float | None, float | None]:
    """Returns `runtime_snr` and `runtime_steps` of the last tensor of a layer that the file has."""
    keys = [id(u.quantizer) for u in usages]
    found = [key for key in keys if measured.tensors is not None and key in measured.tensors.differences]
    if measured.tensors is None or not found:
        return None, None
    return measured.tensors.differences[found[-1]].snr, max(measured.tensors.steps[key] for key in found)
