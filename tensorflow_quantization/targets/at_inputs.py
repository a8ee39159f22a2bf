"""Placement at inputs: a quantizer of its own on each input of what runs in integers, and none on outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.op_traits import Trait, attends, multiplies_activations, traits
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.steps.float_sums import STAYS_IN_FLOATS, find_float_sums
from tensorflow_quantization.targets.structure import StructureRule, first_of
from tensorflow_quantization.targets.table import LayerRule, by_table
from tensorflow_quantization.targets.target import Placement, PlacementRule, SwitchedOff

_RUNS_IN_INTEGERS = Reason(ReasonCode.DEFAULT, "runs in INT8")


def at_inputs(table: Mapping[str, LayerRule], structure: Sequence[StructureRule]) -> PlacementRule:
    """The placement rule of a table of layers, of matrix products of activations, and of the network's structure.

    Args:
        table: what is quantized of a layer, by class name.
        structure: which inputs of a call to quantize, by what stands around it; the first rule that speaks of a call
            decides. Sums stay in floats where integers save nothing.
    """
    layers, around = by_table(table), first_of(*structure)

    def place(graph: LayerGraph, switched_off: SwitchedOff) -> dict[str, Placement]:
        placements = layers(graph, switched_off)
        placements.update(_matmuls(graph, switched_off))
        float_sums = find_float_sums(graph, lambda call: call.path in placements)
        for call in graph.calls:
            inputs = around(graph, call)
            if inputs and not switched_off(call):
                placements[call.path] = Placement() if id(call) in float_sums else Placement(tuple(inputs))
        return {path: replace(p, reason=_RUNS_IN_INTEGERS if p else STAYS_IN_FLOATS) for path, p in placements.items()}

    return place


def _matmuls(graph: LayerGraph, switched_off: SwitchedOff) -> dict[str, Placement]:
    """The placements of what multiplies activations with one another."""
    placements = {}
    for call in graph.calls:
        if switched_off(call) or not (attends(call) or multiplies_activations(call)):
            continue
        inputs = tuple(range(len(call.operands)))
        projects = Trait.PROJECTS in traits(call)
        placements[call.path] = Placement(inputs, weights=projects, inner_matmuls=attends(call))
    return placements
