"""`lower`: writes a Keras model as an ONNX graph, one call of a layer after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from keras import tree

from tensorflow_quantization.export.errors import (
    ExportError,
    NoEmitterError,
    NotExpressibleError,
    OpsetError,
    RuntimeLimitError,
    Unsupported,
    UnsupportedLayerError,
)
from tensorflow_quantization.export.onnx import emitters  # noqa: F401  (registers them)
from tensorflow_quantization.export.onnx.builder import DTYPES, Builder
from tensorflow_quantization.export.onnx.emission import Emission, plain_name, values_in
from tensorflow_quantization.export.onnx.fallback import can_fall_back, can_replace_emitter, convert_call
from tensorflow_quantization.export.onnx.masks import Masks
from tensorflow_quantization.export.onnx.refusals import refusal
from tensorflow_quantization.export.onnx.registry import find_emitter
from tensorflow_quantization.export.onnx.values import Value, channels_first, keras_order, stored_dtype
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.interpreter import Interpreter
from tensorflow_quantization.model.weights import mode_of_keras
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import inner_layer

INPUT_LAYOUTS = ("channels_last", "channels_first")


@dataclass(frozen=True)
class QuantizedTensor:
    """An activation quantizer in the ONNX graph.

    Attributes:
        call: the call of the wrapper in the Keras model.
        quantizer: a quantizer of the wrapper.
        integers: the output of its QuantizeLinear.
    """

    call: Call
    quantizer: ActivationQuantizer
    integers: Value


@dataclass
class Lowered:
    """A model as an ONNX graph before the passes.

    Attributes:
        builder: the builder of the graph.
        inputs: the inputs of the graph, in the model's order.
        outputs: the outputs of the graph, in the model's order. Passes replace tensors in `builder.graph.outputs`, not
            here.
        output_names: the names of the outputs in the file.
        quantized: all activation quantizers, in topological order.
    """

    builder: Builder
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    quantized: list[QuantizedTensor] = field(default_factory=list)


def lower(
    graph: LayerGraph,
    opset: int | None,
    input_layout: str,
    output_names: Sequence[str],
    target: str | None = None,
    untraceable: Mapping[str, str] | None = None,
) -> Lowered:
    """Write every call of a flat `graph` as ONNX.

    Args:
        graph: a graph without nested models; composite layers are expanded, see `expand_composites`.
        opset: the ONNX opset; `None` for the oldest opset that the model can use.
        input_layout: "channels_last", or "channels_first", which stores inputs of rank 4 or 5 as (batch, channels,
            ...) unless the model has `data_format="channels_first"`.
        output_names: names of the outputs, see `names_of_outputs`. A number is appended to a name that is in use.
        target: the runtime that the file is for; `None` (default) for any runtime.
        untraceable: the reasons why layers could not be traced, by path. Default: none.

    Raises:
        UnsupportedLayerError: some layers cannot be written; the message names all of them.
        ExportError: an input has a dtype that is not exported.
        OpsetError: `opset` is older than an operator of the model.
    """
    lowered = Lowered(Builder(opset, target))
    masks = Masks()
    move_channels = input_layout == "channels_first" and not _has_channels_first(graph)
    inputs = []
    for tensor in graph.inputs:
        value = _input(lowered.builder, tensor, move_channels)
        lowered.inputs.append(value)
        if _is_image(graph, tensor):
            # Transpose at the input, so that a quantizer or scaling of the image stays next to its reader.
            value = lowered.builder.arrange(value, channels_first(value.rank), value.onnx.name or "")
        inputs.append(value)
    # The names of inputs and outputs come first: they must not depend on the nodes between them.
    lowered.output_names = [lowered.builder.unique(name) for name in output_names]
    unsupported: list[Unsupported] = []

    def emit(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value | list[Value]:
        try:
            return _emit(lowered, call, args, kwargs, masks)
        except NoEmitterError as error:
            traced = (untraceable or {}).get(call.path)
            attempts = str(error) if traced is None else f"{traced}; {error}"
            unsupported.append(Unsupported(call.path, call.class_name, "", attempts, converter_failed=True))
        except NotExpressibleError as error:
            unsupported.append(Unsupported(call.path, call.class_name, str(error)))
        return _missing(call)

    outputs = tree.flatten(Interpreter(graph).run(inputs, emit))
    if unsupported:
        raise UnsupportedLayerError(unsupported)
    _set_outputs(lowered, outputs)
    return lowered


def _missing(call: Call) -> list[Value]:
    """Values in place of the outputs of a call that cannot be written: the search for other such calls continues."""
    return [Value(ir.Value(), t.shape, t.dtype) for t in call.outputs]


def unsupported_layers(graph: LayerGraph, reasons: dict[str, str]) -> list[Unsupported]:
    """The layers that have no emitter and that tf2onnx cannot convert, and the layers that Keras quantized.

    Args:
        graph: the graph after `expand_composites`.
        reasons: the reasons why layers could not be traced, by path.
    """
    found = {}
    for call in graph.calls:
        mode = mode_of_keras(call.operation)
        if mode is not None:
            found[call.path] = Unsupported(
                call.path, call.class_name, f"is quantized by Keras' own model.quantize({mode!r})"
            )
        elif find_emitter(call.operation) is None:
            if can_fall_back() and not refusal(call.operation):
                continue
            found[call.path] = Unsupported(
                call.path, call.class_name, refusal(call.operation), reasons.get(call.path, "")
            )
    return list(found.values())


def _input(builder: Builder, tensor: Tensor, move_channels: bool) -> Value:
    if stored_dtype(tensor.dtype) not in DTYPES:
        raise ExportError(
            f"Input {tensor.name!r} has dtype {tensor.dtype!r}, which is not exported. Export a model that "
            "starts after the layer that converts this input to numbers."
        )
    rank = len(tensor.shape)
    order = channels_first(rank) if move_channels and rank in (4, 5) else keras_order(rank)
    return builder.input(plain_name(tensor.name), tensor.shape, tensor.dtype, order)


def _is_image(graph: LayerGraph, tensor: Tensor) -> bool:
    """Whether the first reader that needs a layout, after readers that accept any layout, needs channels first."""
    if len(tensor.shape) < 3:
        return False
    for _ in graph.calls:
        readers = graph.consumers(tensor)
        if len(readers) != 1:
            return False
        layer = inner_layer(readers[0].operation)
        entry = find_emitter(layer)
        if entry is None:
            return False
        if entry.layout == "channels_first":
            return getattr(layer, "data_format", None) != "channels_first"
        if (
            entry.layout != "any"
            or len(readers[0].outputs) != 1
            or len(readers[0].outputs[0].shape) != len(tensor.shape)
        ):
            return False
        tensor = readers[0].outputs[0]
    return False


def _has_channels_first(graph: LayerGraph) -> bool:
    """Whether all layers with a `data_format` have "channels_first"."""
    formats = {getattr(inner_layer(call.operation), "data_format", None) for call in graph.calls} - {None}
    return formats == {"channels_first"}


def _as_operand(call: Call, argument: Any, value: Any) -> Any:
    """What an emitter gets for an argument of a call: for a weight that is like a constant, its variable."""
    if isinstance(argument, Tensor) and argument.producer is not None and call.has_constant(argument):
        return argument.producer.operation.value
    return value


def _emit(
    lowered: Lowered, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], masks: Masks
) -> Value | list[Value]:
    entry = find_emitter(call.operation)

    def record(quantizer: ActivationQuantizer, integers: Value) -> None:
        lowered.quantized.append(QuantizedTensor(call, quantizer, integers))

    emission = Emission(lowered.builder, plain_name(call.path), call.operation, call.outputs, record=record)
    inputs = values_in(args, kwargs)
    found = masks.arguments(call)
    if entry is None:
        if found:  # tf2onnx would not see the masks
            raise NotExpressibleError(f"reads the mask that Keras passes as {next(iter(found))!r}, and has no emitter")
        result: Any = convert_call(emission, call, inputs)
        masks.follow(emission, call, inputs)
        return result
    args = tuple(_as_operand(call, x, value) for x, value in zip(call.args, args, strict=True))
    args, kwargs = emission.arrange_inputs(entry, call.operation, args, {**kwargs, **found})
    try:
        result = emission.run(entry, args, kwargs)
    except NotExpressibleError as error:
        # tf2onnx would not see the masks here either. A pass removes the nodes that the emitter wrote before its error.
        if found or isinstance(error, RuntimeLimitError) or not can_replace_emitter(call):
            raise
        result = _convert_refused(emission, call, inputs, error)
    masks.follow(emission, call, inputs)
    return result


def _convert_refused(
    emission: Emission, call: Call, inputs: Sequence[Value], error: NotExpressibleError
) -> list[Value]:
    """Convert a call that its emitter rejected. If that fails too, the error has both reasons."""
    try:
        return convert_call(emission, call, inputs, compare=True)
    except (NoEmitterError, OpsetError) as failed:
        raise NotExpressibleError(f"{error}; and {failed}") from error


def _set_outputs(lowered: Lowered, outputs: Sequence[Value]) -> None:
    builder = lowered.builder
    for value, name in zip(outputs, lowered.output_names, strict=True):
        value = builder.arrange(value, keras_order(value.rank), name)
        # A graph must not return one of its inputs, or a tensor twice.
        if value.onnx.producer() is None or any(value.onnx is other for other in builder.graph.outputs):
            value = value.with_onnx(builder.node("Identity", [value], {}, f"{name}/Identity")[0])
        builder.graph.outputs.append(value.onnx)
        lowered.outputs.append(value)


def finish(lowered: Lowered) -> ir.Graph:
    """Set names, shapes and dtypes of the outputs, after the passes; return the graph."""
    builder = lowered.builder
    for index, (value, name) in enumerate(zip(lowered.outputs, lowered.output_names, strict=True)):
        onnx = builder.graph.outputs[index]
        builder.annotate(value.with_onnx(onnx))
        # As in the inputs; but where others read it, the name would spread, and the axis may be no batch.
        if onnx.shape is not None and onnx.shape.rank() and value.shape[0] is None and not onnx.uses():
            onnx.shape = ir.Shape(["batch", *onnx.shape[1:]])
        onnx.name = name
    builder.graph.opset_imports[""] = builder.opset
    return builder.graph
