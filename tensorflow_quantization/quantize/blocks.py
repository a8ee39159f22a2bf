"""Blocks, layers of one's own that are made of layers: what they hold is quantized like everything else.

A block is opened: it is read like a nested model, and is one in the quantized model. That is only done where the model
then trains and computes as before; a block that does what a model of its layers would not do stays a layer, in float.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.model.keras_classes import is_of_keras
from tensorflow_quantization.model.keras_internals import ReshapeOperation, own_variables, sublayers
from tensorflow_quantization.model.tracing import UntraceableError, reason_of, trace_call
from tensorflow_quantization.quantize.plan import QuantizationPlan
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, find_wrapper


@dataclass
class Block:
    """A layer that was opened.

    Attributes:
        path: of the layer.
        calls: of the layer, and what their arguments, keyword arguments and inputs were before.
    """

    path: str
    calls: list[tuple[Call, tuple[Any, ...], dict[str, Any], list[Tensor]]]

    def close(self) -> None:
        """Make it a layer again."""
        for call, args, kwargs, inputs in self.calls:
            call.args, call.kwargs, call.inputs, call.subgraph = args, kwargs, inputs, None


def open_blocks(graph: LayerGraph, stays: Callable[[Call], bool]) -> tuple[list[Block], dict[str, Reason]]:
    """Give the calls of blocks a subgraph, as those of nested models have one.

    Args:
        graph: not flat; its calls change.
        stays: whether a layer is left closed, because somebody speaks of it as a whole.

    Returns:
        What was opened, and why other blocks stay closed, by their path.
    """
    blocks: list[Block] = []
    reasons: dict[str, Reason] = {}
    of_layers: dict[int, list[Call]] = collections.defaultdict(list)
    for call in _calls(graph, set()):
        of_layers[id(call.operation)].append(call)
    for calls in of_layers.values():
        if not _is_block(calls[0]) or stays(calls[0]):
            continue
        try:
            block, inner = _open(calls)
        except Exception as error:  # of any kind, from the code of the block
            text = f"its layers stay in float: {reason_of(error)}"
            reasons[calls[0].path] = Reason(ReasonCode.CLOSED_BLOCK, text)
            continue
        inner_blocks, inner_reasons = open_blocks(inner, stays)
        blocks += [block, *inner_blocks]
        reasons.update(inner_reasons)
    return blocks, reasons


def close_unquantized(blocks: Sequence[Block], plan: QuantizationPlan) -> QuantizationPlan:
    """Close those blocks again in which nothing is quantized, so that they stay as they are.

    Args:
        blocks: that were opened, a block before those within it.
        plan: for the graph with open blocks.

    Returns:
        The plan for the graph as it is now.
    """
    for block in blocks:
        inside = [layer for layer in plan if layer.path.startswith(f"{block.path}/")]
        if inside and not any(layer.quantized for layer in inside):
            block.close()
            reason = Reason(ReasonCode.CLOSED_BLOCK, "nothing in it is quantized")
            plan = plan.merged(inside, block.path, block.calls[0][0].class_name, reason)
    return plan


def _calls(graph: LayerGraph, seen: set[int]) -> Iterator[Call]:
    """The calls of a graph and of the models within, of each model once."""
    for call in graph.calls:
        if call.subgraph is None:
            yield call
        elif id(call.subgraph) not in seen:
            seen.add(id(call.subgraph))
            yield from _calls(call.subgraph, seen)


def _is_block(call: Call) -> bool:
    """Whether this is a layer of somebody's own with layers in it that can be quantized, and are not yet."""
    layer: Any = call.operation
    if not call.is_layer or is_of_keras(type(layer)) or isinstance(layer, BaseQuantizeWrapper) or find_wrapper(layer):
        return False
    inner = sublayers(layer)
    quantized = any(isinstance(x, BaseQuantizeWrapper) or getattr(x, "quantization_mode", None) for x in inner)
    return any(map(find_wrapper, inner)) and not quantized


class _WatchingScope(keras.StatelessScope):
    """Notes which variables are read while a block is traced.

    It is the block's own code that reads them: layers that are called on symbolic tensors compute nothing.
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


def _open(calls: list[Call]) -> tuple[Block, LayerGraph]:
    """Open the layer of these calls, the same one.

    Raises:
        UntraceableError: a model of its layers would not do the same.
        Exception: of any kind, as its code raises it.
    """
    call, layer = calls[0], _checked(calls)
    explicit = call.kwargs.get("training")
    inner, positions = _trace(call, explicit)
    if explicit is None and "training" in layer.call_signature_parameters:
        while_training, _ = _trace(call, True)
        if _structure(while_training) != _structure(inner):
            raise UntraceableError("it does something else in training")
    _settle_shapes(call, explicit, inner)
    _check_inner(layer, inner)
    inner.model = layer
    if len(inner.inputs) == 1:
        (inner.input_structure,) = inner.inputs
    block = Block(call.path, [(c, c.args, c.kwargs, c.inputs) for c in calls])
    for c in calls:
        c.inputs = [c.inputs[i] for i in positions]
        c.args, c.kwargs = (c.inputs[0] if len(c.inputs) == 1 else c.inputs,), {}
        c.subgraph = inner
    return block, inner


def _checked(calls: list[Call]) -> Any:
    """The layer of these calls, if nothing that is seen from outside forbids to open it."""
    layer: Any = calls[0].operation
    for variable in own_variables(layer):
        raise UntraceableError(f"it has a weight of its own, {variable.name!r}")
    if layer.activity_regularizer is not None:
        raise UntraceableError("it has an activity regularizer")
    if type(layer).compute_mask is not keras.layers.Layer.compute_mask:
        raise UntraceableError("it makes a mask of its own")
    if len({_signature(call) for call in calls}) > 1:
        raise UntraceableError("it is called in several ways")
    for tensor in calls[0].inputs:
        if layer.autocast and keras.backend.is_float_dtype(tensor.dtype) and tensor.dtype != layer.compute_dtype:
            raise UntraceableError(f"it casts its inputs from {tensor.dtype} to {layer.compute_dtype}")
    return layer


def _signature(call: Call) -> str:
    """What a call gives its layer, but for the tensors' values."""
    return repr(substitute((call.args, call.kwargs), lambda t: (t.shape, t.dtype)))


def _trace(call: Call, training: bool | None) -> tuple[LayerGraph, list[int]]:
    scope = _WatchingScope()
    traced = trace_call(call, training, scope)
    if scope.read:
        raise UntraceableError(f"it reads {scope.read[0]!r} itself")
    return traced


def _structure(graph: LayerGraph) -> tuple[Any, ...]:
    """What a graph computes, to be compared."""
    places = {id(t): i for i, t in enumerate(graph.inputs)}

    def place(tensor: Tensor) -> str:
        return f"tensor {places[id(tensor)]}"

    rows = []
    for call in graph.calls:
        kwargs = {key: value for key, value in call.kwargs.items() if key != "training"}
        operation = id(call.operation) if call.is_layer else (call.class_name, repr(call.operation.get_config()))
        rows.append((operation, repr(substitute((call.args, kwargs), place))))
        for tensor in call.outputs:
            places[id(tensor)] = len(places)
    return rows, [place(t) for t in graph.outputs]


def _settle_shapes(call: Call, training: bool | None, inner: LayerGraph) -> None:
    """Give reshapes to `(ops.shape(x)[0], ...)` a number for each axis, as two batch sizes show what it is."""
    if not any(isinstance(c.operation, ReshapeOperation) and None in c.operation.newshape for c in inner.calls):
        return
    traces = [trace_call(call, training, batch=size)[0].calls for size in (2, 3)]
    for c, *samples in zip(inner.calls, *traces, strict=True):
        for tensor, *outputs in zip(c.outputs, *(sample.outputs for sample in samples), strict=True):
            tensor.shape = tuple(a if a == b else None for a, b in zip(*(t.shape for t in outputs), strict=True))
        if isinstance(c.operation, ReshapeOperation) and c.outputs[0].shape.count(None) <= 1:
            newshape = tuple(-1 if size is None else size for size in c.outputs[0].shape)
            c.operation = ReshapeOperation(newshape, name=c.name)


def _check_inner(layer: Any, graph: LayerGraph) -> None:
    """Whether a model can be made of what a block calls.

    Raises:
        UntraceableError: it cannot.
    """
    for call in graph.calls:
        for x in tree.flatten((call.args, call.kwargs)):
            if isinstance(x, keras.Variable):
                raise UntraceableError(f"it reads {x.path!r} itself")
        if not call.is_layer and _needs_unknown_size(call):
            raise UntraceableError(f"its {call.class_name} needs a size that is only known when it runs")
    layers = [call.operation for call in graph.calls if call.is_layer]
    called = {id(inner) for operation in layers for inner in (operation, *sublayers(operation))}
    for inner in sublayers(layer):
        if inner.weights and id(inner) not in called and not _parts_called(inner, called):
            raise UntraceableError(f"it has a layer that it does not call, {inner.name!r}")
    if any(t is x for t in graph.outputs for x in graph.inputs):
        raise UntraceableError("it returns an input as it is")


def _needs_unknown_size(call: Call) -> bool:
    """Whether an operation got a shape with `None` in it, from code that asked for the size of a dynamic axis."""
    values = [*vars(call.operation).values(), *call.args, *call.kwargs.values()]
    return any(isinstance(v, tuple) and None in v and any(isinstance(size, int) for size in v) for v in values)


def _parts_called(layer: Any, called: set[int]) -> bool:
    """Whether a layer with no variables of its own has only layers that are called, as a list of layers has."""
    parts = sublayers(layer, recursive=False)
    own = own_variables(layer)
    return not own and all(id(part) in called or _parts_called(part, called) for part in parts if part.weights)
