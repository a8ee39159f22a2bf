"""Placement at tensors: one quantizer where a tensor is made, shared by all that read it.

The way of runtimes that compute whole chains (convolution, normalization, activation) in one integer kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import keras

from tensorflow_quantization.model.activations import Activation, activation_of, last_activation, own_activation
from tensorflow_quantization.model.fusion import (
    KernelFusion,
    computing_readers,
    fused_calls,
    fused_convolution,
    fused_sum_operand,
    fusing_call,
)
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.op_traits import Trait, attends, is_one_of, multiplies_activations, origin, traits
from tensorflow_quantization.targets.target import Placement, PlacementRule


@dataclass(frozen=True)
class TensorRules:
    """What a runtime computes in integers.

    Attributes:
        weighted: classes of layers whose kernels are quantized.
        unweighted: further classes of layers and operations that are computed in integers.
        attention: classes of Keras' layers whose projections, and products of activations, are computed in integers.
        products: classes of layers and operations that multiply two activations in integers.
        fused: names of activations that are part of the kernel before them.
        gated: names of activations whose gate is quantized too, so that they are computed in integers.
        alone: names of activations that are integer kernels of their own where no kernel before them takes them in.
        fixed: the scale and zero point that the runtime demands of the output of an activation, by its name.
        numbers: whether sums and products with a number are computed in integers too.
        not_fusing: classes whose kernels take in no activation.
        floats: why the runtime computes a layer or operation in floats, a clause, by class name.
        one_scale: classes that compute new values at the scale of their input: one quantizer, of their own, for both.
        outputs: whether a kernel runs in integers only if its output, after what is fused, is quantized too.
        float_products: but a product of matrices gives floats where no integer kernel reads it.
        float_sums: sums stay in floats where integers save nothing, see `float_sums`.
        fused_sums: the kernel of a convolution adds to its products what an Add joins with them, without rounding them
            first.
        pooled: what a convolution writes is quantized, too, if only pooling reads it, for less to write and to pool.
        scaling: classes that scale and shift channels; several in a row are one kernel.
        rounding: classes whose kernels may round their output to integers unasked; they stay in floats where no
            quantizer says to which.
    """

    weighted: frozenset[str]
    unweighted: frozenset[str]
    fused: frozenset[str]
    outputs: bool
    attention: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()
    float_products: bool = False
    fused_sums: bool = False
    pooled: bool = False
    scaling: frozenset[str] = frozenset()
    float_sums: bool = False
    rounding: frozenset[str] = frozenset()
    gated: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    fixed: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    numbers: bool = False
    not_fusing: frozenset[str] = frozenset()
    one_scale: frozenset[str] = frozenset()
    floats: Mapping[str, str] = field(default_factory=dict)

    @property
    def fusion(self) -> KernelFusion:
        return KernelFusion(frozenset(map(Activation, self.fused)), self.not_fusing, bool(self.scaling))


#: Two kernels in one layer: what flows between them is quantized as what flows between layers.
SEPARABLE = frozenset({"SeparableConv1D", "SeparableConv2D"})
#: Their output's quantizer serves their inputs too, unless something else reads these.
JOINING = frozenset({"Concatenate"})
_MERGING = frozenset({"Add", "Multiply", "Concatenate", "Subtract"})
_SUMS = frozenset({"Add"})
#: Why a sum is left alone.
IN_FLOATS = "stays in floats: no integer kernel computes it along, or reads it"
#: What the gate of a SiLU is.
_GATE = "sigmoid"


def at_tensors(rules: TensorRules) -> PlacementRule:
    """The placement rule that gives each tensor between integer kernels one quantizer."""

    keeping = JOINING | rules.one_scale

    def place(graph: LayerGraph, switched_off: Callable[[Call], bool]) -> dict[str, Placement]:
        placements: dict[str, Placement] = {}

        def update(path: str, reason: str, **changes) -> None:
            placements[path] = replace(placements.get(path, Placement(reason=reason)), **changes)

        def want(tensor: Tensor, reason: str, factor: str = "") -> None:
            if not keras.backend.is_float_dtype(tensor.dtype):
                return
            tensor = origin(tensor)
            if _cannot_be_quantized(tensor):
                return
            activation = last_activation(tensor)
            fixed = rules.fixed.get(activation)
            reader = graph.only_reader(tensor)
            # A reader that keeps the scale of what it reads brings the quantizer for it.
            if fixed is None and reader and _matches(reader, keeping) and not switched_off(reader):
                return
            path = tensor.producer.path if tensor.producer else tensor.name
            if tensor.producer and (floats := _why_float(tensor.producer, rules)):
                reason = f"{reason}; itself {floats}"
            if factor == "left":
                before = placements.get(path, Placement()).factor
                factor = "positive" if activation.is_never_negative and before != "any" else "any"
            changes = {"factor": factor} if factor else {}
            update(path, reason, output=True, fixed_output=fixed, **changes)

        def is_integer(call: Call) -> bool:
            return _is_integer(call, rules)

        in_floats = float_sums(graph, is_integer) if rules.float_sums else set()
        kernels = [call for call in graph.calls if is_integer(call) and id(call) not in in_floats]
        taken_in = {id(inner) for call in kernels for inner in fused_calls(graph, call, rules.fusion)}
        rounding = [call for call in kernels if _matches(call, rules.rounding)]
        for call in kernels:
            if id(call) in taken_in or switched_off(call) or call in rounding:
                continue
            if activation_of(call.operation) in rules.gated:
                update(call.path, "computed in integers", gate=True, output=True, fixed_gate=rules.fixed.get(_GATE))
            if _matches(call, rules.weighted):
                update(call.path, "computed in integers", weights=True, inner=_matches(call, SEPARABLE))
            if _matches(call, rules.one_scale):
                update(call.path, "computed in integers", inputs=(0,), output=True, one_scale=True)
                continue
            projects = attends(call) and Trait.PROJECTS in traits(call)
            if rules.attention and attends(call):
                update(call.path, "computed in integers", weights=projects, products=True)
            for index, tensor in enumerate(call.operands):
                is_factor = _multiplies(call, rules) and not projects
                if not (rules.fused_sums and _is_unrounded(graph, call, tensor)):
                    want(tensor, f"read by {call.path}", ("any" if index else "left") if is_factor else "")
            if rules.outputs and not (rules.float_products and _is_float_product(graph, call, rules, in_floats)):
                own = own_activation(call.operation)
                if own not in rules.fused and own != "linear":
                    gate = own in rules.gated
                    update(call.path, "computed in integers", before_activation=True)
                    if gate or own in rules.alone:
                        want(call.outputs[0], f"written by the kernel of {own}")
                    if gate:
                        update(call.path, "", gate=True, output=True, fixed_gate=rules.fixed.get(_GATE))
                else:
                    want(_end_of_kernel(graph, call, rules), f"written by the kernel of {call.path}")
        for call in graph.calls if rules.pooled else ():
            if (pooled := _pooled(graph, call)) is not None and not switched_off(call):
                want(pooled, f"written by an integer kernel and pooled before {call.path}")
        for call in reversed(rounding):  # what reads them is decided on
            if not switched_off(call) and _is_quantized(graph, call.outputs[0], placements):
                want(call.inputs[0], f"read by {call.path}")
        for call in rounding:
            if switched_off(call) or _is_quantized(graph, call.outputs[0], placements):
                continue
            if _is_quantized(graph, origin(call.inputs[0]), placements):  # for others that read it
                want(call.outputs[0], "rounded: what is averaged are integers")
            elif call.path not in placements:
                update(call.path, "stays in floats: no quantizer reads what it gives")
        for call in graph.calls:
            if id(call) in in_floats and call.path not in placements:
                update(call.path, IN_FLOATS)
        return placements

    return place


def why_not(rules: TensorRules) -> Callable[[LayerGraph, Call], str]:
    """What `at_tensors` says of a call without a quantizer of its own."""

    def reason(graph: LayerGraph, call: Call) -> str:
        if Trait.MOVES_DATA in traits(call):
            return "hands on the integers of what it reads"
        if (kernel := fusing_call(graph, call, rules.fusion, lambda c: _is_integer(c, rules))) is not None:
            return f"part of the kernel of {kernel.path}"
        if _is_integer(call, rules):
            return "what it reads is quantized where it is made"
        return _why_float(call, rules) or "not known to run in integers"

    return reason


def _why_float(call: Call, rules: TensorRules) -> str | None:
    return next((rules.floats[name] for name in call.class_names if name in rules.floats), None)


def _is_integer(call: Call, rules: TensorRules) -> bool:
    """Whether a call is computed in integers if its tensors are quantized."""
    if activation_of(call.operation) in rules.gated:
        return call.is_layer
    if activation_of(call.operation) in rules.alone or _multiplies(call, rules):
        return True
    if not call.is_layer and _matches(call, _MERGING) and len(call.inputs) < 2:
        return rules.numbers  # the other operand is one
    return _matches(call, rules.weighted | rules.unweighted)


def _multiplies(call: Call, rules: TensorRules) -> bool:
    """Whether a product of activations, be it one within a layer, is computed in integers."""
    return (bool(rules.attention) and attends(call)) or (bool(rules.products) and multiplies_activations(call))


def _matches(call: Call, classes: Iterable[str]) -> bool:
    return is_one_of(call, classes)


def _is_unrounded(graph: LayerGraph, call: Call, tensor: Tensor) -> bool:
    """Whether `call` adds something to the products of a convolution, which `tensor` is."""
    return fused_sum_operand(graph, call) is tensor and last_activation(origin(tensor)) == "linear"


def _pooled(graph: LayerGraph, call: Call) -> Tensor | None:
    """What a convolution writes, and `call`, a normalization in floats, reads pooled or padded."""
    if Trait.NORMALIZES not in traits(call):
        return None
    tensor = origin(call.inputs[0])
    return tensor if tensor is not call.inputs[0] and fused_convolution(graph, tensor) is not None else None


def float_sums(graph: LayerGraph, is_integer: Callable[[Call], bool]) -> set[int]:
    """The ids of the calls of sums that had better stay in floats: residual connections of transformers.

    A convolution computes the sum behind it along, and a kernel of integers that reads it wants it in integers. Where
    neither is so, between products of matrices and layer normalizations, integers save nothing, and a sum that goes
    through the whole network would be rounded anew in each block.

    Args:
        is_integer: whether a call is computed in integers if its tensors are quantized.
    """
    found: set[int] = set()
    for call in reversed(graph.calls):  # those that read a sum are known before it
        if not _matches(call, _SUMS):
            continue
        convolved = any(fused_convolution(graph, origin(tensor)) is not None for tensor in call.inputs)
        readers = computing_readers(graph, call.outputs[0])
        if not convolved and not any(is_integer(reader) and id(reader) not in found for reader in readers):
            found.add(id(call))
    return found


def _cannot_be_quantized(tensor: Tensor) -> bool:
    """Whether it is one of several outputs; but of attention, which returns scores too, the wrapper knows the first."""
    if tensor.producer is None or len(tensor.producer.outputs) == 1:
        return False
    return tensor.index > 0 or not attends(tensor.producer)


def _is_quantized(graph: LayerGraph, tensor: Tensor, placements: Mapping[str, Placement]) -> bool:
    """Whether a quantizer reads `tensor`, its own one or that of a concatenation it is part of."""
    producers = [tensor.producer, *(reader for reader in graph.consumers(tensor) if _matches(reader, JOINING))]
    return any(placements.get(call.path, Placement()).output for call in producers if call is not None)


def _end_of_kernel(graph: LayerGraph, call: Call, rules: TensorRules) -> Tensor:
    """The tensor that the integer kernel of `call` writes: after the normalization and activation fused with it."""
    return [call, *fused_calls(graph, call, rules.fusion)][-1].outputs[0]


def _is_float_product(graph: LayerGraph, call: Call, rules: TensorRules, in_floats: set[int]) -> bool:
    """Whether `call` is a product of matrices that nothing computed in integers reads."""
    if not _matches(call, ("Dense", "EinsumDense")) and not _multiplies(call, rules):
        return False
    own = own_activation(call.operation)
    if own != "linear" and own not in rules.fused | rules.gated | rules.alone:
        return True  # the activation reads it
    readers = computing_readers(graph, _end_of_kernel(graph, call, rules))
    return not any(_is_integer(reader, rules) and id(reader) not in in_floats for reader in readers)
