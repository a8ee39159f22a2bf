"""`describe`: for each layer of a model, its quantizers and the reason why it is quantized or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import keras
import numpy as np

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.weights import merged_array
from tensorflow_quantization.quantize.planner import make_plan
from tensorflow_quantization.quantize.stored_reasons import ReasonsOfFloat, stored_reasons
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.targets import DEFAULT
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.text.layers import ByLayer
from tensorflow_quantization.text.tables import html_summary, markdown_table, text_table
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, float_path

Quantizer = ActivationQuantizer | WeightQuantizer
#: What is quantized, by which quantizer; the weight, `None` for an activation.
NamedQuantizer = tuple[str, Quantizer, np.ndarray | None]


@dataclass(frozen=True)
class QuantizerDescription:
    """One quantizer of a layer.

    Examples:
        >>> kernel = describe(quantize_model(model))["conv"].quantizers[1]
        >>> kernel.what, kernel.bits, kernel.dtype, kernel.axis
        ('kernel', 8, 'int8', (-1,))

    Attributes:
        what: the tensor that is quantized: "input", "input 1", "output", a weight ("kernel"), or a tensor inside the
            layer ("gate", "inner", "probability"). In an attention layer, the name of a projection comes first: "query
            kernel". "after it": the output of a layer that computes in float, quantized for its readers.
        bits: bits of the integers, 2 to 8.
        dtype: the type that stores the integers: "int8" or "uint8"; for FP8 "float8_e4m3fn".
        axis: the channel axes of a weight, a tuple of int; `None`: per tensor.
        range: the range of an activation as (low, high), in units of the activation; `None` for weights. If the scale
            is learned, or the target demands it: the values of the least and the greatest integer.
        block_size: as many inputs of a channel of a weight share a scale; `None`: all.
        scale: the step of the integers, in units of the tensor: a float, for weights per channel a tuple with one float
            for each channel; for weights in blocks, the first block of all channels comes first. The export multiplies
            scales of weights by the factors of a folded BatchNormalization.
        zero_point: the integer that stands for 0.0 in an activation; `None` for weights.
        seen: `False` if an activation still has its initial range: the quantizer saw no data.
        frozen: `True` if training does not change the range.
        learned: `True` if the scale is a trained weight, `ranges="learned"` or `weight_ranges="learned"`.
    """

    what: str
    bits: int
    dtype: str
    axis: tuple[int, ...] | None = None
    range: tuple[float, float] | None = None
    scale: float | tuple[float, ...] | None = None
    zero_point: int | None = None
    seen: bool = True
    frozen: bool = False
    learned: bool = False
    block_size: int | None = None

    def __str__(self) -> str:
        text = (
            f"{self.what} {self.dtype if 'float' in self.dtype else self.dtype.rstrip('0123456789') + str(self.bits)}"
        )
        marks = ", learned" if self.learned else ""
        if self.axis is not None:
            blocks = f" in blocks of {self.block_size}" if self.block_size else ""
            return f"{text} per channel (axis {', '.join(map(str, self.axis))}){blocks}{marks}"
        if self.range is None:
            return f"{text} per tensor{marks}"
        marks += "" if self.seen else ", never saw data"
        marks += ", frozen" if self.frozen else ""
        return f"{text} [{self.range[0]:.4g}, {self.range[1]:.4g}]{marks}"


@dataclass(frozen=True)
class LayerDescription:
    """One layer of a model: its quantizers, and the reason why it is quantized or not.

    Examples:
        >>> layer = describe(quantize_model(model))["conv"]
        >>> layer.name, layer.class_name, layer.quantized, layer.code.value
        ('quant_conv', 'Conv2D', True, 'default')

    Attributes:
        name: the path of the layer through nested models: "backbone/quant_conv1".
        class_name: the class of the layer; for a wrapper, the class of the wrapped layer.
        quantizers: a tuple of `QuantizerDescription`, empty for a layer without quantizers.
        code: the reason for programs, a `ReasonCode` such as "fused" or "not_named".
        reason: the reason for people, a clause.
    """

    name: str
    class_name: str
    quantizers: tuple[QuantizerDescription, ...]
    code: ReasonCode
    reason: str

    @property
    def quantized(self) -> bool:
        return bool(self.quantizers)


class ModelDescription(ByLayer[LayerDescription]):
    """The layers of a model as a table. Print it, iterate over it, or look a layer up by its path.

    Examples:
        >>> description = describe(quantize_model(model))
        >>> [layer.name for layer in description]
        ['quant_conv', 'quant_pool', 'quant_scores']
        >>> description["conv"].reason
        'default'

    Attributes:
        name: the name of the model.
        layers: a list of `LayerDescription`, in the order of the calls.
        is_float: whether the model has no quantizers, and `quantize_model` did not make it.
    """

    titles = ("layer", "class", "quantized", "why")

    def __init__(self, name: str, layers: list[LayerDescription], is_float: bool = False):
        self.name = name
        self.layers = layers
        self.is_float = is_float

    def _find(self, name: str) -> LayerDescription | None:
        by_float_path = (layer for layer in self.layers if float_path(layer.name) == float_path(name))
        return super()._find(name) or next(by_float_path, None)

    def _path(self, layer: LayerDescription) -> str:
        return layer.name

    @property
    def _owner(self) -> str:
        return f"Model {self.name!r}"

    def to_dict(self) -> dict[str, Any]:
        """The description as a dict for JSON: {"model": name, "layers": [...]}."""
        return {"model": self.name, "layers": [dataclasses.asdict(layer) for layer in self.layers]}

    def to_markdown(self) -> str:
        """The description as a Markdown table with one row for each layer."""
        return markdown_table(self.titles, [[*row[:2], "<br>".join(row[2]), row[3]] for row in self._rows()])

    def __str__(self) -> str:
        return f"{self._head()}\n{text_table(self.titles, self._lines())}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_summary(self._head(), self.titles, self._lines())

    def _head(self) -> str:
        quantized = sum(layer.quantized for layer in self.layers)
        if self.is_float:
            what = f"Model {self.name!r} has {len(self.layers)} layers and no quantizers, it is a float model"
            return f"{what}: quantize_model, or the command `quantize`, adds them"
        return f"Model {self.name!r}: {quantized} of {len(self.layers)} layers quantized"

    def _lines(self) -> list[list[str]]:
        """One line for each quantizer; the first has the layer."""
        lines = []
        for name, class_name, quantizers, reason in self._rows():
            lines.append([name, class_name, quantizers[0], reason])
            lines += [["", "", quantizer, ""] for quantizer in quantizers[1:]]
        return lines

    def _rows(self) -> list[tuple[str, str, list[str], str]]:
        return [
            (layer.name, layer.class_name, [str(q) for q in layer.quantizers] or ["-"], layer.reason)
            for layer in self.layers
        ]


def describe(model: keras.Model) -> ModelDescription:
    """Return the quantizers of each layer of a model, and the reason why each layer is quantized or not.

    `quantize_model` stores the reasons in the model, and a saved file keeps them. In a model without stored reasons, a
    float layer has the reason of the default table.

    Examples:
        >>> quantized = quantize_model(model)
        >>> description = describe(quantized)
        >>> print(description["scores"].quantizers[1])
        kernel int8 per channel (axis -1)
        >>> description["scores"].reason
        'default'

    Args:
        model: a built `keras.Model`, quantized or float.

    Returns:
        A `ModelDescription` with the bits, axes and current ranges of all quantizers. A shared layer is listed once.

    Raises:
        TypeError: `model` is not a `keras.Model`.
        ValueError: `model` is not built, or cannot be traced.
    """
    graph = LayerGraph.trace(model).flatten()
    reasons = stored = stored_reasons(graph)
    calls = [call for call in graph.calls if not _only_names_an_output(call, reasons)]
    if any(call.path not in reasons for call in calls):
        reasons = _reasons_of_default_table(graph) | reasons
    described: dict[int, LayerDescription] = {}
    for call in calls:
        if not isinstance(call.operation, ReasonsOfFloat):
            described.setdefault(id(call.operation), _describe_call(call, reasons[call.path]))
    is_float = not stored and not any(layer.quantized for layer in described.values())
    return ModelDescription(model.name, list(described.values()), is_float)


def _only_names_an_output(call: Call, stored: dict[str, Reason]) -> bool:
    """Whether a layer of a quantized model only restores the name of an output."""
    return bool(stored) and call.class_name == "Identity" and call.path not in stored


def _reasons_of_default_table(graph: LayerGraph) -> dict[str, Reason]:
    """The reasons for the layers of a model that stores none."""
    plan = make_plan(graph, target=DEFAULT)
    is_float = not any(True for call in graph.calls for _ in named_quantizers(call.operation))
    kept = "float; quantize_model quantizes it" if is_float else "left as it is"

    def reason(call: Call) -> Reason:
        if isinstance(call.operation, BaseQuantizeWrapper):
            return Reason(ReasonCode.UNKNOWN, "wrapped")
        if isinstance(call.operation, ActivationQuantizer):
            return Reason(ReasonCode.UNKNOWN, "quantized")
        if plan[call.path].quantized:
            return Reason(ReasonCode.UNKNOWN, kept)  # the default table would quantize it
        return plan[call.path].reason

    return {call.path: reason(call) for call in graph.calls}


def _describe_call(call: Call, reason: Reason) -> LayerDescription:
    operation, class_name = call.operation, call.class_name
    quantizers = [_describe_quantizer(*named) for named in named_quantizers(operation)]
    if isinstance(operation, BaseQuantizeWrapper):
        class_name = type(operation.layer).__name__
    if reason.code is ReasonCode.FLOAT_READ_IN_INTEGERS:
        quantizers = [dataclasses.replace(q, what="after it") if q.what == "output" else q for q in quantizers]
    return LayerDescription(call.path, class_name, tuple(quantizers), reason.code, reason.text)


def named_quantizers(operation: keras.Operation) -> Iterator[NamedQuantizer]:
    """Yields what each quantizer of an operation quantizes, the quantizer, and the weight.

    The weight is `None` for an activation. The order is that of `LayerDescription.quantizers`.
    """
    if isinstance(operation, ActivationQuantizer):
        yield "output", operation, None
    if not isinstance(operation, BaseQuantizeWrapper):
        return
    for index, quantizer in enumerate(operation.input_quantizers):
        if quantizer is not None:
            yield _input_name(operation, index), quantizer, None
    for kernel, weight_quantizer in operation.weight_quantizers.items():
        yield kernel, weight_quantizer, merged_array(operation.layer, kernel)
    for name, part in operation.parts.items():
        yield from ((f"{name} {what}", quantizer, weight) for what, quantizer, weight in named_quantizers(part))
    parts = operation.parts.values()
    named = [*operation.input_quantizers, *(q for part in parts for q in part.activation_quantizers)]
    for quantizer in operation.activation_quantizers:
        if quantizer not in named:
            yield quantizer.name.removesuffix("_quantizer"), quantizer, None


def _input_name(wrapper: BaseQuantizeWrapper, index: int) -> str:
    return "input" if len(wrapper.input_quantizers) == 1 else f"input {index}"


def _describe_quantizer(what: str, quantizer: Quantizer, weight: np.ndarray | None) -> QuantizerDescription:
    if weight is None:
        return _describe_activation(what, cast(ActivationQuantizer, quantizer))
    return _describe_weight(what, cast(WeightQuantizer, quantizer), weight)


def _describe_activation(what: str, quantizer: ActivationQuantizer) -> QuantizerDescription:
    scale, zero_point = quantizer.parameters()
    return QuantizerDescription(
        what,
        quantizer.scheme.bits,
        quantizer.scheme.dtype,
        range=quantizer.limits(),
        scale=float(scale),
        zero_point=int(zero_point),
        seen=quantizer.seen,
        frozen=quantizer.frozen,
        learned=quantizer.learns,
    )


def _describe_weight(kernel: str, quantizer: WeightQuantizer, weight: np.ndarray) -> QuantizerDescription:
    scheme = quantizer.scheme
    scales = tuple(quantizer.scales(weight).tolist())
    return QuantizerDescription(
        kernel,
        scheme.bits,
        scheme.dtype,
        axis=scheme.axis,
        scale=scales[0] if scheme.axis is None else scales,
        learned=quantizer.learns,
        block_size=scheme.block_size,
    )
