"""Blocks: custom layers made of layers, or of operations on several inputs. What is inside is quantized like any other.

A block is opened: the planner reads it like a nested model, and it is a nested model in the quantized model. A block
is opened only if a model of its layers trains and computes the same. Any other block stays one float layer.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.model.keras_classes import is_keras_layer
from tensorflow_quantization.model.keras_internals import own_variables, sublayers
from tensorflow_quantization.model.masking import mask_parameters
from tensorflow_quantization.model.own_weights import OwnWeights
from tensorflow_quantization.model.sampling import trace_with_sizes
from tensorflow_quantization.model.specs import states_its_output
from tensorflow_quantization.model.tracing import UntraceableError, reason_of
from tensorflow_quantization.quantize.plan import QuantizationPlan
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, find_wrapper

Shape = tuple[int | None, ...]

#: Reasons of layers without quantizers that are computed in integers.
_IN_INTEGERS = frozenset({ReasonCode.FUSED, ReasonCode.SHARES_QUANTIZER, ReasonCode.MOVES_DATA})


@dataclass
class Block:
    """A layer that was opened.

    Attributes:
        path: the path of the layer.
        calls: the calls of the layer, each with its arguments, keyword arguments and inputs before it was opened.
        stays_open: whether a functional model cannot hold the layer itself.
    """

    path: str
    calls: list[tuple[Call, tuple[Any, ...], dict[str, Any], list[Tensor]]]
    stays_open: bool = False

    def close(self) -> None:
        """Make the block a layer again."""
        for call, args, kwargs, inputs in self.calls:
            call.args, call.kwargs, call.inputs, call.subgraph = args, kwargs, inputs, None


def open_blocks(
    graph: LayerGraph, stays: Callable[[Call], bool], masked: Callable[[Call], bool], inside: bool = False
) -> tuple[list[Block], dict[str, Reason]]:
    """Open the blocks of a graph: set the subgraph of their calls, as for calls of nested models.

    Args:
        graph: a graph that is not flattened; its calls change.
        stays: whether to leave a layer closed, because a spec or case names it as a whole.
        masked: whether a call may get a tensor with a mask.
        inside: whether the graph is of a block, whose layers were never called in a functional model. Default `False`.

    Returns:
        The opened blocks, a block before the blocks inside it; and by path, the reason why a block stays closed.

    Raises:
        UntraceableError: the graph is of a block, and no functional model can hold one of its layers.
    """
    blocks: list[Block] = []
    reasons: dict[str, Reason] = {}
    of_layers: dict[int, list[Call]] = collections.defaultdict(list)
    for call in _calls(graph, set()):
        of_layers[id(call.operation)].append(call)
    for calls in of_layers.values():
        is_masked = any(map(masked, calls))
        misstated = inside and not all(map(states_its_output, calls))
        if misstated and not calls[0].is_layer:
            raise UntraceableError(f"Keras cannot call its {calls[0].class_name} on tensors of unknown sizes")
        if not misstated and (not _is_block(calls[0], is_masked) or stays(calls[0])):
            continue
        block = None
        try:
            block, inner = _open(calls, is_masked)
            inner_blocks, inner_reasons = open_blocks(inner, stays, masked, inside=True)
        except Exception as error:  # the code of the block may raise anything
            if block is not None:
                block.close()
            if misstated:
                raise UntraceableError(
                    f"the output shape that its layer {calls[0].name!r} states is wrong, and {reason_of(error)}"
                ) from error
            # Without layers in it, it is a layer like any other, of which the plan says why it stays in float.
            if not sublayers(calls[0].operation):
                continue
            text = f"its layers stay in float: {reason_of(error)}"
            reasons[calls[0].path] = Reason(ReasonCode.CLOSED_BLOCK, text)
            continue
        block.stays_open = misstated
        blocks += [block, *inner_blocks]
        reasons.update(inner_reasons)
    return blocks, reasons


def close_unquantized(blocks: Sequence[Block], plan: QuantizationPlan) -> QuantizationPlan:
    """Close each block again in which nothing is quantized, so that the model keeps it unchanged.

    Args:
        blocks: the opened blocks, a block before the blocks inside it.
        plan: the plan for the graph with open blocks.

    Returns:
        The plan for the changed graph.
    """
    for block in blocks:
        if block.stays_open:
            continue
        inside = [layer for layer in plan if layer.path.startswith(f"{block.path}/")]
        if inside and not any(layer.quantized for layer in inside):
            block.close()
            without_own = all(layer.reason.code in _IN_INTEGERS for layer in inside)
            reason = inside[-1].reason if without_own else Reason(ReasonCode.CLOSED_BLOCK, "nothing in it is quantized")
            plan = plan.merged(inside, block.path, block.calls[0][0].class_name, reason)
    return plan


def _calls(graph: LayerGraph, seen: set[int]) -> Iterator[Call]:
    """The calls of a graph and of its nested models; a shared model once."""
    for call in graph.calls:
        if call.subgraph is None:
            yield call
        elif id(call.subgraph) not in seen:
            seen.add(id(call.subgraph))
            yield from _calls(call.subgraph, seen)


def _is_block(call: Call, is_masked: bool) -> bool:
    """Whether a custom layer holds layers that can be quantized, none of them yet; or computes with its inputs alone.

    The latter only with several inputs, as for a sum or a product of them: with one, it is an activation, most often.
    And only without masks, since a nested model hands masks on that the layer may drop.
    """
    layer: Any = call.operation
    if (
        not call.is_layer
        or is_keras_layer(type(layer))
        or isinstance(layer, BaseQuantizeWrapper)
        or find_wrapper(layer)
    ):
        return False
    inner = sublayers(layer)
    if not inner and not layer.variables:
        return len(call.operands) > 1 and not is_masked
    quantized = any(isinstance(x, BaseQuantizeWrapper) or getattr(x, "quantization_mode", None) for x in inner)
    return any(map(find_wrapper, inner)) and not quantized


class _WatchingScope(keras.StatelessScope):
    """Records which variables are read while a block is traced.

    Only the code of the block reads variables then: layers that are called on symbolic tensors compute nothing.
    """

    def __init__(self):
        super().__init__()
        self.read: list[str] = []
        self._entered = False

    def __enter__(self):
        self._entered = True
        return super().__enter__()

    def __exit__(self, *args):
        self._entered = False
        return super().__exit__(*args)

    def get_current_value(self, variable):
        if self._entered:
            self.read.append(variable.path)
        return super().get_current_value(variable)


def _open(calls: list[Call], is_masked: bool) -> tuple[Block, LayerGraph]:
    """Open a layer.

    Args:
        calls: all calls of the layer.
        is_masked: whether one of them may get a tensor with a mask.

    Raises:
        UntraceableError: a model of its layers would not compute the same.
        Exception: whatever the code of the layer raises.
    """
    layer = _checked(calls, is_masked)
    weights = OwnWeights(layer)
    try:
        inner, positions = _traced(calls, weights)
    except Exception:
        with_constants, found = OwnWeights(layer, constants=True), None
        with contextlib.suppress(Exception):  # the first reason is about the code as it is
            found = _traced(calls, with_constants)  # the code may call a layer on a constant
        if found is None:
            raise
        inner, positions = found
        with_constants.set_passed()
    inner.model = layer
    if len(inner.inputs) == 1:
        (inner.input_structure,) = inner.inputs
    block = Block(calls[0].path, [(c, c.args, c.kwargs, c.inputs) for c in calls])
    for c in calls:
        c.inputs = [c.inputs[i] for i in positions]
        c.args, c.kwargs = (c.inputs[0] if len(c.inputs) == 1 else c.inputs,), {}
        c.subgraph = inner
    return block, inner


def _checked(calls: list[Call], is_masked: bool) -> Any:
    """The layer of these calls, one of which may get a tensor with a mask.

    Raises:
        UntraceableError: an attribute of the layer, or the way it is called, forbids opening it.
    """
    layer: Any = calls[0].operation
    if layer.activity_regularizer is not None:
        raise UntraceableError("it has an activity regularizer")
    if type(layer).compute_mask is not keras.layers.Layer.compute_mask:
        raise UntraceableError("it overrides compute_mask")
    if is_masked and (reads := [name for call in calls for name in mask_parameters(call)]):
        raise UntraceableError(f"a mask may reach its argument {reads[0]!r}")
    if len({_signature(call) for call in calls}) > 1:
        raise UntraceableError("its calls differ in arguments, ranks or dtypes")
    for tensor in calls[0].inputs:
        if layer.autocast and keras.backend.is_float_dtype(tensor.dtype) and tensor.dtype != layer.compute_dtype:
            raise UntraceableError(f"it casts its inputs from {tensor.dtype} to {layer.compute_dtype}")
    return layer


def _signature(call: Call) -> str:
    """The arguments of a call as text, with the rank and dtype of each tensor."""
    return repr(substitute((call.args, call.kwargs), lambda t: (len(t.shape), t.dtype)))


def _general(calls: list[Call], shapes: set[tuple[Shape, ...]]) -> Call:
    """The first of the calls, with inputs of all shapes: an axis in which these differ is unknown."""
    first = calls[0]
    if len(shapes) == 1:
        return first
    sizes = [[set(axis) for axis in zip(*of_input, strict=True)] for of_input in zip(*shapes, strict=True)]
    known = {
        id(t): replace(t, shape=tuple(axis.pop() if len(axis) == 1 else None for axis in axes))
        for t, axes in zip(first.inputs, sizes, strict=True)
    }
    args, kwargs = substitute((first.args, first.kwargs), lambda t: known[id(t)])
    return replace(first, args=args, kwargs=kwargs, inputs=[known[id(t)] for t in first.inputs])


def _traced(calls: list[Call], weights: OwnWeights) -> tuple[LayerGraph, list[int]]:
    """The graph of a block, and for each of its inputs the index among the inputs of a call.

    Raises:
        UntraceableError: a model of its layers would not compute the same.
        Exception: whatever the code of the layer raises.
    """
    shapes = {tuple(t.shape for t in call.inputs) for call in calls}
    call = _general(calls, shapes)
    others = list(shapes) if len(shapes) > 1 else []

    layer: Any = call.operation
    scope = _WatchingScope()
    explicit = call.kwargs.get("training")
    decides = explicit is None and "training" in layer.call_signature_parameters
    inner, positions = trace_with_sizes(call, explicit, scope, weights, others, same_in_training=decides)
    if scope.read:
        raise UntraceableError(f"its code reads the variable {scope.read[0]!r}")
    _check_inner(layer, inner)
    if not sublayers(layer) and len(positions) < len(call.inputs):
        raise UntraceableError("it does not use all its inputs")
    return inner, positions


def _check_inner(layer: Any, graph: LayerGraph) -> None:
    """Check that a model can be built from the calls of a block.

    Raises:
        UntraceableError: it cannot.
    """
    for call in graph.calls:
        for x in tree.flatten((call.args, call.kwargs)):
            if isinstance(x, keras.Variable):
                raise UntraceableError(f"its code reads the variable {x.path!r}")
    layers = [call.operation for call in graph.calls if call.is_layer]
    called = {id(inner) for operation in layers for inner in (operation, *sublayers(operation))}
    for inner in sublayers(layer):
        if inner.weights and id(inner) not in called and not _parts_called(inner, called):
            raise UntraceableError(f"it never calls its layer {inner.name!r}")


def _parts_called(layer: Any, called: set[int]) -> bool:
    """Whether a layer only holds layers that are called, as a list of layers does, and has no variables itself."""
    parts = sublayers(layer, recursive=False)
    own = own_variables(layer)
    return not own and all(id(part) in called or _parts_called(part, called) for part in parts if part.weights)
