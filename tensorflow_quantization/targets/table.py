"""Placement by a table of layer classes: quantizers on the inputs and weights of each layer whose class it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.target import Placement, PlacementRule, SwitchedOff

_DEFAULT = Reason(ReasonCode.DEFAULT, "default")


@dataclass(frozen=True)
class LayerRule:
    """What to quantize of the layers of one class by default.

    Attributes:
        inputs: quantize all inputs.
        weights: quantize the kernels.
        why_not: if both are off, the reason, and how to quantize the layer.
        pointwise_input: quantize the tensor between the depthwise and pointwise kernels of a separable convolution.
    """

    inputs: bool = True
    weights: bool = True
    why_not: Reason | None = None
    pointwise_input: bool = False


def by_table(table: Mapping[str, LayerRule]) -> PlacementRule:
    """A placement rule from a table by class name. A subclass has the rule of its nearest base class in the table."""

    def place(graph: LayerGraph, switched_off: SwitchedOff) -> dict[str, Placement]:
        placements = {}
        for call in graph.calls:
            rule = next((table[name] for name in call.class_names if name in table), None)
            if rule is None or not call.is_layer or switched_off(call):
                continue
            inputs = tuple(range(len(call.inputs))) if rule.inputs else ()
            placement = Placement(inputs, rule.weights, pointwise_input=rule.pointwise_input, reason=_DEFAULT)
            placements[call.path] = placement if placement else replace(placement, reason=rule.why_not)
        return placements

    return place
