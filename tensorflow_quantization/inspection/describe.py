"""`describe`: every layer of a model, quantized or not, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantize.planner import make_plan
from tensorflow_quantization.quantize.stored_reasons import ReasonsOfFloat, stored_reasons
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.targets import DEFAULT
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.text.tables import markdown_table, text_table
from tensorflow_quantization.wrappers import BaseQuantizeWrapper


@dataclass(frozen=True)
class QuantizerDescription:
    """One quantizer.

    Attributes:
        what: "input", "input 1", "output", the name of a weight, or of what flows within the layer ("gate", "inner",
            "probability"); before that the name of a projection of an attention layer: "query kernel".
        bits: of the integers.
        dtype: "int8" or "uint8".
        axis: the channel axes of a weight; `None`: one scale for the whole tensor.
        range: (low, high) of an activation; `None` for weights, whose range is their own.
        scale, zero_point: of an activation.
        seen: an activation's range comes from data.
        frozen: training does not move it.
    """

    what: str
    bits: int
    dtype: str
    axis: tuple[int, ...] | None = None
    range: tuple[float, float] | None = None
    scale: float | None = None
    zero_point: int | None = None
    seen: bool = True
    frozen: bool = False

    def __str__(self) -> str:
        text = f"{self.what} {self.dtype.rstrip('8')}{self.bits}"
        if self.axis is not None:
            return f"{text} per channel (axis {', '.join(map(str, self.axis))})"
        if self.range is None:
            return f"{text} per tensor"
        marks = "" if self.seen else ", never saw data"
        marks += ", frozen" if self.frozen else ""
        return f"{text} [{self.range[0]:.4g}, {self.range[1]:.4g}]{marks}"


@dataclass(frozen=True)
class LayerDescription:
    """One layer.

    Attributes:
        name: its path.
        class_name: its class; of a wrapper, the class of the layer in it.
        quantizers: what it has.
        code: why it is quantized, or why not, for programs: a `ReasonCode` such as "fused" or "not_named".
        reason: the same for people.
    """

    name: str
    class_name: str
    quantizers: tuple[QuantizerDescription, ...]
    code: ReasonCode
    reason: str

    @property
    def quantized(self) -> bool:
        return bool(self.quantizers)


class ModelDescription:
    """A table of layers: iterate over it, print it, or take `to_dict()` or `to_markdown()`."""

    titles = ("layer", "class", "quantized", "why")

    def __init__(self, name: str, layers: list[LayerDescription]):
        self.name = name
        self.layers = layers

    def __iter__(self) -> Iterator[LayerDescription]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> LayerDescription:
        """The layer with this path, in the quantized model or in the model that it was made from.

        Raises:
            KeyError: there is none; the message holds the closest.
        """
        found = [layer for layer in self.layers if layer.name == name]
        found += [layer for layer in self.layers if _float_name(layer.name) == _float_name(name)]
        if not found:
            hint = did_you_mean(name, [layer.name for layer in self.layers])
            raise KeyError(f"Model {self.name!r} has no layer {name!r}.{hint}")
        return found[0]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {"model": name, "layers": [...]}."""
        return {"model": self.name, "layers": [dataclasses.asdict(layer) for layer in self.layers]}

    def to_markdown(self) -> str:
        """A Markdown table, a row a layer."""
        return markdown_table(self.titles, [[*row[:2], "<br>".join(row[2]), row[3]] for row in self._rows()])

    def __str__(self) -> str:
        rows = []
        for name, class_name, quantizers, reason in self._rows():
            rows.append([name, class_name, quantizers[0], reason])
            rows += [["", "", quantizer, ""] for quantizer in quantizers[1:]]
        quantized = sum(layer.quantized for layer in self.layers)
        head = f"Model {self.name!r}: {quantized} of {len(self.layers)} layers quantized"
        return f"{head}\n{text_table(self.titles, rows)}"

    __repr__ = __str__

    def _rows(self) -> list[tuple[str, str, list[str], str]]:
        return [
            (layer.name, layer.class_name, [str(q) for q in layer.quantizers] or ["-"], layer.reason)
            for layer in self.layers
        ]


def describe(model: keras.Model) -> ModelDescription:
    """What is quantized in a model, with bits, axes and current ranges, and what is not, with the reason.

    The reasons are those of the `quantize_model` call that made the model; a file keeps them. In a model that was made
    otherwise, a layer left alone has the reason of the default table.

    Args:
        model: a Keras model, quantized or not.

    Raises:
        TypeError, ValueError: not a Keras model, or not built.
    """
    graph = LayerGraph.trace(model).flatten()
    reasons = stored_reasons(graph)
    calls = [call for call in graph.calls if not _only_names_an_output(call, reasons)]
    if any(call.path not in reasons for call in calls):
        reasons = _reasons_of_default_table(graph) | reasons
    described: dict[int, LayerDescription] = {}
    for call in calls:
        if not isinstance(call.operation, ReasonsOfFloat):
            described.setdefault(id(call.operation), _describe_call(call, reasons[call.path]))
    return ModelDescription(model.name, list(described.values()))


def _only_names_an_output(call: Call, stored: dict[str, Reason]) -> bool:
    """Whether a quantized model has this layer only to give an output its name back."""
    return bool(stored) and call.class_name == "Identity" and call.path not in stored


def _float_name(path: str) -> str:
    """The path of a layer in the model that the quantized one was made from."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.removeprefix('quant_')}"


def _reasons_of_default_table(graph: LayerGraph) -> dict[str, Reason]:
    """Why the layers of a model without stored reasons are as they are."""
    plan = make_plan(graph, target=DEFAULT)

    def reason(call: Call) -> Reason:
        if isinstance(call.operation, BaseQuantizeWrapper):
            return Reason(ReasonCode.UNKNOWN, "wrapped")
        if isinstance(call.operation, ActivationQuantizer):
            return Reason(ReasonCode.UNKNOWN, "quantized")
        if plan[call.path].quantized:
            return Reason(ReasonCode.UNKNOWN, "left as it is")  # though the table would quantize it
        return plan[call.path].reason

    return {call.path: reason(call) for call in graph.calls}


def _describe_call(call: Call, reason: Reason) -> LayerDescription:
    operation, class_name = call.operation, call.class_name
    quantizers: list[QuantizerDescription] = []
    if isinstance(operation, ActivationQuantizer):
        quantizers = [_describe_activation(operation, "output")]
    elif isinstance(operation, BaseQuantizeWrapper):
        quantizers, class_name = list(_quantizers(operation)), type(operation.layer).__name__
    return LayerDescription(call.path, class_name, tuple(quantizers), reason.code, reason.text)


def _quantizers(wrapper: BaseQuantizeWrapper) -> Iterator[QuantizerDescription]:
    for index, quantizer in enumerate(wrapper.input_quantizers):
        if quantizer is not None:
            yield _describe_activation(quantizer, _input_name(wrapper, index))
    for kernel, weight_quantizer in wrapper.weight_quantizers.items():
        yield _describe_weight(weight_quantizer, kernel)
    for name, part in wrapper.parts.items():
        yield from (dataclasses.replace(quantizer, what=f"{name} {quantizer.what}") for quantizer in _quantizers(part))
    described = [*wrapper.input_quantizers, *(q for part in wrapper.parts.values() for q in part.activation_quantizers)]
    for quantizer in wrapper.activation_quantizers:
        if quantizer not in described:
            yield _describe_activation(quantizer, quantizer.name.removesuffix("_quantizer"))


def _input_name(wrapper: BaseQuantizeWrapper, index: int) -> str:
    return "input" if len(wrapper.input_quantizers) == 1 else f"input {index}"


def _describe_activation(quantizer: ActivationQuantizer, what: str) -> QuantizerDescription:
    scale, zero_point = quantizer.parameters()
    low, high = (float(v) for v in quantizer.range.numpy())
    scheme = quantizer.scheme
    return QuantizerDescription(
        what,
        scheme.bits,
        scheme.dtype,
        range=(low, high),
        scale=float(scale),
        zero_point=int(zero_point),
        seen=quantizer.seen,
        frozen=quantizer.frozen,
    )


def _describe_weight(quantizer: WeightQuantizer, kernel: str) -> QuantizerDescription:
    scheme = quantizer.scheme
    return QuantizerDescription(kernel, scheme.bits, scheme.dtype, axis=scheme.axis)
