"""Placement by a table of layer classes: quantizers on the inputs and weights of each layer that is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tensorflow_quantization.targets.target import Placement, PlacementRule


@dataclass(frozen=True)
class LayerRule:
    """What is quantized, unasked, of the layers of one class.

    Attributes:
        inputs: all of its inputs.
        weights: its kernels.
        why_not: where both are off: the reason, and what turns it on.
        inner: what flows between its kernels, of a layer that has two.
    """

    inputs: bool = True
    weights: bool = True
    why_not: str = ""
    inner: bool = False


def by_table(table: Mapping[str, LayerRule]) -> PlacementRule:
    """The placement rule of a table by layer class name; a subclass has the rule of its nearest base in it."""

    def place(graph, switched_off):
        placements = {}
        for call in graph.calls:
            rule = next((table[name] for name in call.class_names if name in table), None)
            if rule is None or not call.is_layer or switched_off(call):
                continue
            inputs = tuple(range(len(call.inputs))) if rule.inputs else ()
            placement = Placement(inputs, rule.weights, inner=rule.inner, reason="default")
            placements[call.path] = placement if placement else replace(placement, reason=rule.why_not)
        return placements

    return place
