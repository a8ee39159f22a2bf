"""`describe`: every layer of a model, quantized or not, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantize.plan import attached_plan, make_plan
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.targets import DEFAULT
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
    """One layer: its path, class, quantizers, and the reason for what it has."""

    name: str
    class_name: str
    quantizers: tuple[QuantizerDescription, ...]
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
        """The layer with this path.

        Raises:
            KeyError: there is none; the message holds the closest.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        hint = did_you_mean(name, [layer.name for layer in self.layers])
        raise KeyError(f"Model {self.name!r} has no layer {name!r}.{hint}")

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

    The reasons are those of the `quantize_model` call that made the model. A file does not keep them: for a model that
    was loaded, a layer left alone has the reason of the default table.

    Args:
        model: a Keras model, quantized or not.

    Raises:
        TypeError, ValueError: not a Keras model, or not built.
    """
    graph = LayerGraph.trace(model).flatten()
    plan = attached_plan(model)
    if plan is None:
        plan = make_plan(graph, target=DEFAULT)
    reasons = {layer.path: layer.reason for layer in plan}
    classes = {layer.path: layer.class_name for layer in plan}
    described: dict[int, LayerDescription] = {}
    for call in graph.calls:
        if call.class_name == "Identity" and classes.get(call.path) != "Identity":
            continue  # only gives a quantized output its name back
        described.setdefault(id(call.operation), _describe_call(call, reasons))
    return ModelDescription(model.name, list(described.values()))


def _describe_call(call: Call, reasons: dict[str, str]) -> LayerDescription:
    operation = call.operation
    # The plan speaks of the layer that was wrapped, or of the tensor that the quantizer is behind.
    planned = call.path[: len(call.path) - len(call.name)] + call.name.removeprefix("quant_")
    if isinstance(operation, ActivationQuantizer):
        quantizers = [_describe_activation(operation, "output")]
        reader = planned.rpartition("_input_")[0]  # of one in front of an operation of keras.ops
        reason = reasons.get(planned, f"read by {reader}" if reader in reasons else "quantized")
        return LayerDescription(call.path, call.class_name, tuple(quantizers), reason)
    if not isinstance(operation, BaseQuantizeWrapper):
        reason = reasons.get(call.path, "not quantized")
        return LayerDescription(call.path, call.class_name, (), "left as it is" if reason == "default" else reason)
    return LayerDescription(
        call.path, type(operation.layer).__name__, tuple(_quantizers(operation)), reasons.get(planned, "wrapped")
    )


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
