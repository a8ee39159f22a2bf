"""TensorRT 10 and 11: dedicated Q/DQ pairs in front of what runs in INT8, int8 symmetric with zero point 0.

From its documentation, "Working with quantized types", and its ONNX importer; no TensorRT was at hand to measure.
"""

from dataclasses import replace

from tensorflow_quantization.model.op_traits import Trait, attends, multiplies_activations, traits
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.structure import (
    first_of,
    max_pooling_input,
    multiply_inputs,
    residual_inputs,
    unfolded_normalization_input,
)
from tensorflow_quantization.targets.table import LayerRule, by_table
from tensorflow_quantization.targets.target import Placement, Target
from tensorflow_quantization.targets.tensors import IN_FLOATS, SEPARABLE, float_sums

_WEIGHTED = (
    *(f"Conv{rank}D{suffix}" for rank in (1, 2, 3) for suffix in ("", "Transpose")),
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dense",
    "EinsumDense",
)
_POOLINGS = tuple(f"{scope}AveragePooling{rank}D" for rank in (1, 2, 3) for scope in ("", "Global"))

_TABLE = by_table(
    {
        **dict.fromkeys(_WEIGHTED, LayerRule()),
        **dict.fromkeys(SEPARABLE, LayerRule(inner=True)),
        **dict.fromkeys(_POOLINGS, LayerRule(weights=False)),
    }
)
#: Residual adds and squeeze-and-excite products, normalizations that are not folded, and max pooling.
_STRUCTURE = first_of(residual_inputs, multiply_inputs, unfolded_normalization_input, max_pooling_input)


def _place(graph, switched_off):
    placements = _TABLE(graph, switched_off)
    placements.update(_products(graph, switched_off))
    in_floats = float_sums(graph, lambda call: call.path in placements)
    for call in graph.calls:
        inputs = _STRUCTURE(graph, call)
        if inputs and not switched_off(call):
            placements[call.path] = Placement() if id(call) in in_floats else Placement(tuple(inputs))
    return {path: replace(p, reason="runs in INT8" if p else IN_FLOATS) for path, p in placements.items()}


def _products(graph, switched_off):
    """The placements of what multiplies activations with one another."""
    placements = {}
    for call in graph.calls:
        inputs = tuple(range(len(call.operands)))
        if attends(call) and not switched_off(call):
            placements[call.path] = Placement(inputs, weights=Trait.PROJECTS in traits(call), products=True)
        elif multiplies_activations(call) and not switched_off(call):
            placements[call.path] = Placement(inputs)
    return placements


TENSORRT = Target(
    name="tensorrt",
    place=_place,
    # The runtime saturates at -128, so activations may too; weights stay within -127 to 127.
    activations=QuantizationScheme(narrow_range=False),
    weights=QuantizationScheme(),
)
