"""Placement at inputs: each input of an integer kernel has its own quantizer; hardly any output has one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.mask_numbers import mask_numbers
from tensorflow_quantization.model.op_traits import Trait, attends, factors, is_one_of, multiplies_activations, traits
from tensorflow_quantization.targets.float_sums import STAYS_IN_FLOATS, find_float_sums
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.structure import StructureRule, first_of
from tensorflow_quantization.targets.table import LayerRule, by_table
from tensorflow_quantization.targets.target import Placement, PlacementRule, SwitchedOff

_RUNS_IN_INTEGERS = Reason(ReasonCode.DEFAULT, "runs in INT8")
#: Measured by the engine of TensorRT for RTX 1.7, floats read and written, and the signal-to-noise ratio: four layers
#: of BERT, whose sums read a normalization as the matrix products do, 27.8 to 23.6 MB, and 31 to 27 dB; a U-Net, whose
#: concatenations read what is pooled, 148 to 124 MB, and 16.9 to 16.7 dB.
_READS_INTEGERS = Reason(ReasonCode.DEFAULT, "stays in float; reads the integers that another layer reads")


def at_inputs(
    table: Mapping[str, LayerRule],
    structure: Sequence[StructureRule],
    outputs: Collection[str] = (),
    reason: Reason = _RUNS_IN_INTEGERS,
) -> PlacementRule:
    """A placement rule from a table of layers and rules on the network's structure.

    The rule also quantizes the operands of matrix products of activations. It leaves a sum in float where integers save
    nothing, see `targets.float_sums`. Such a sum, and a concatenation, read the integers of a tensor that has them for
    another layer.

    Args:
        table: what to quantize of a layer, by class name.
        structure: rules that choose the inputs of a call to quantize from the calls around it; the first rule that
            returns inputs decides.
        outputs: classes of layers whose kernel reads integers only if it writes integers, too: their output is
            quantized where a layer reads it in float. Default: none.
        reason: why the rule quantizes a call; default: it runs in INT8.
    """
    layers, around = by_table(table), first_of(*structure)

    def place(graph: LayerGraph, switched_off: SwitchedOff) -> dict[str, Placement]:
        placements = layers(graph, switched_off)
        placements.update(_matmuls(graph, switched_off))
        float_sums = find_float_sums(graph, lambda call: call.path in placements)
        masked = mask_numbers(graph)
        for call in graph.calls:
            inputs = () if any(id(tensor) in masked for tensor in call.inputs) else around(graph, call)
            if inputs and not switched_off(call):
                placements[call.path] = Placement() if id(call) in float_sums else Placement(tuple(inputs))
        reasons: dict[str, Reason] = {}
        for call in graph.calls:
            is_sum = id(call) in float_sums and call.path in placements
            is_join = call.path not in placements and _joins_once(call) and not switched_off(call)
            shared = _read_by_others(graph, call, placements) if is_sum or is_join else ()
            if is_sum or shared:
                placements[call.path] = Placement(shared)
                reasons[call.path] = _READS_INTEGERS if shared else STAYS_IN_FLOATS
        for call in graph.calls:
            placement = placements.get(call.path)
            if placement and is_one_of(call, outputs) and not _all_quantize(graph, call.outputs[0], placements):
                placements[call.path] = replace(placement, output=True)
        return {path: replace(p, reason=reasons.get(path, reason)) for path, p in placements.items()}

    return place


def _read_by_others(graph: LayerGraph, call: Call, placements: Mapping[str, Placement]) -> tuple[int, ...]:
    """The indices of the operands of a call that have a quantizer for another layer."""
    return tuple(
        index
        for index, tensor in enumerate(call.operands)
        if any(_quantizes(reader, tensor, placements) for reader in graph.consumers(tensor) if reader is not call)
    )


def _joins_once(call: Call) -> bool:
    """Whether a call concatenates no concatenation: a chain of them would round the first tensor again and again."""
    producers = [tensor.producer for tensor in call.operands if tensor.producer is not None]
    return Trait.JOINS in traits(call) and not any(Trait.JOINS in traits(producer) for producer in producers)


def _quantizes(reader: Call, tensor: Tensor, placements: Mapping[str, Placement]) -> bool:
    """Whether a layer has a quantizer on a tensor that it reads."""
    quantized = placements.get(reader.path, Placement()).inputs
    return any(source is tensor and index in quantized for index, source in enumerate(reader.operands))


def _all_quantize(graph: LayerGraph, tensor: Tensor, placements: Mapping[str, Placement]) -> bool:
    """Whether each layer that reads a tensor, directly or moved, has a quantizer on it."""
    if graph.is_output(tensor):
        return False
    for reader in graph.consumers(tensor):
        if Trait.MOVES_DATA in traits(reader) and reader.path not in placements:
            if not all(_all_quantize(graph, output, placements) for output in reader.outputs):
                return False
        else:
            quantized = placements.get(reader.path, Placement()).inputs
            if any(source is tensor and index not in quantized for index, source in enumerate(reader.operands)):
                return False
    return True


def _matmuls(graph: LayerGraph, switched_off: SwitchedOff) -> dict[str, Placement]:
    """The placements of layers and operations that multiply two activations as matrices."""
    placements = {}
    for call in graph.calls:
        if switched_off(call) or not (attends(call) or multiplies_activations(call)):
            continue
        projects = Trait.PROJECTS in traits(call)
        placements[call.path] = Placement(factors(call), weights=projects, inner_matmuls=attends(call))
    return placements
