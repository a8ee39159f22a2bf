"""`Emission`: what an emitter writes one layer with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import tree

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.builder import DTYPES, Builder, array_dtype
from tensorflow_quantization.export.onnx.composite import trace_function
from tensorflow_quantization.export.onnx.registry import Emitter, find_emitter
from tensorflow_quantization.export.onnx.values import Order, Value, keras_order, stored_array
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer


class Emission:
    """Writes the ONNX nodes of one call of a layer.

    Args:
        builder: the graph.
        path: the layer's name with the models around it; node names start with it.
        operation: the layer, the `keras.ops` operation or the activation function.
        outputs: for each output of the call its shape and dtype, by attributes of these names.
        weight_quantizers: the quantizers of the layer's weights, by attribute name.
        record: called with each activation quantizer that is written, what it quantizes and the integers.
        arrays: what is written for some of the layer's weights, by attribute name, in place of the weights.
        stand_ins: by the id of a layer within this one, what is emitted in its place: its wrapper.
        within: by name, what is done to tensors within the layer, see `apply`.
    """

    def __init__(
        self,
        builder: Builder,
        path: str,
        operation: Any,
        outputs: Sequence[Any],
        weight_quantizers: dict[str, WeightQuantizer] | None = None,
        record: Callable[[ActivationQuantizer, Value], None] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        stand_ins: Mapping[int, Any] | None = None,
        within: Mapping[str, Callable[[Value], Value]] | None = None,
    ):
        self.builder = builder
        self.path = path
        self.operation = operation
        self.outputs = outputs
        self._weight_quantizers = weight_quantizers or {}
        self._record = record
        self._arrays = arrays or {}
        self._stand_ins = stand_ins or {}
        self._within = within or {}

    # What the emitters of most layers need.

    def op(self, op_type: str, *inputs: Any, since: int = 13, name: str = "", **attributes: Any) -> ir.Value:
        """Append an ONNX operator with one output.

        Args:
            op_type: its name, "Conv".
            *inputs: `Value`s, results of `op`, numpy arrays or numbers (float32 and int64 scalars), or `None`.
            since: the opset that has the operator.
            name: of the node, within the layer; by default `op_type`.
            **attributes: those of the operator; `None` leaves one out.

        Raises:
            OpsetError: the opset asked for is older than `since`.
        """
        self.builder.require(since, f"{op_type}, of which {self.path!r} is made,")
        return self.builder.node(op_type, inputs, attributes, f"{self.path}/{name or op_type}")[0]

    def split(self, x: Any, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        """A Split along a stored axis, which is the operator with several outputs."""
        arguments = [x, np.asarray(sizes, np.int64)]
        return self.builder.node("Split", arguments, {"axis": axis}, f"{self.path}/Split", len(sizes))

    def array(self, name: str) -> np.ndarray | None:
        """A weight attribute of the layer as float32; `None` if the layer has none."""
        if name in self._arrays:
            return self._arrays[name]
        variable = getattr(self.operation, name, None)
        return None if variable is None else to_numpy(variable, "float32")

    def weight(
        self, name: str, transform: Callable[[np.ndarray], np.ndarray] = lambda w: w, axis: int | None = None
    ) -> ir.Value | None:
        """A weight attribute of the layer as a constant; where it is quantized, as integers and a DequantizeLinear.

        Args:
            name: of the attribute, "kernel".
            transform: from Keras' axis order to that of ONNX: transpositions, reshapes, permutations only.
            axis: of the transformed weight, that of the output channels.

        Returns:
            The constant, or `None` if the layer has no such weight.

        Raises:
            NotExpressibleError: its scales differ along other axes than `axis`.
        """
        array = self.array(name)
        if array is None:
            return None
        quantizer = self._weight_quantizers.get(name)
        if quantizer is None:
            return self.builder.shared_initializer(f"{self.path}/{name}", transform(array))
        integers = transform(quantizer.integers(array))
        scale, zero_point = (
            _per_channel(transform(np.broadcast_to(p, array.shape)), p.size > 1, axis, name)
            for p in quantizer.parameters(array)
        )
        prefix = f"{self.path}/{name}"
        arguments = [
            self.builder.shared_initializer(prefix, integers),
            self.builder.initializer(f"{prefix}_scale", scale),
            self.builder.initializer(f"{prefix}_zero_point", zero_point),
        ]
        # Without an axis the attribute would be its default, 1, which a checker may hold against a scalar.
        return self.op(
            "DequantizeLinear", *arguments, name=f"{name}/DequantizeLinear", axis=axis if scale.ndim else None
        )

    def is_quantized(self, name: str) -> bool:
        """Whether a weight attribute of the layer is quantized."""
        return name in self._weight_quantizers

    def value(self, x: Any, dtype: str) -> Value:
        """A tensor argument that may be a `Value`, or an array or variable, then stored as Keras has it."""
        if isinstance(x, Value):
            return self.cast(x, dtype)
        array = to_numpy(x, dtype)
        if isinstance(x, keras.Variable):
            return Value(self.stored(x.name, array), array.shape, dtype)
        return Value(self.builder.constant(array), array.shape, dtype)

    def stored(self, name: str, array: np.ndarray) -> ir.Value:
        """An array that an operation takes, as a constant that all operations share which are part of the same layer.

        A layer may use a weight several times: a recurrent one, that is written step by step, does.
        """
        return self.builder.shared_initializer(f"{self.path.rpartition('/')[0] or self.path}/{plain_name(name)}", array)

    def constant(self, x: Any, like: Value) -> np.ndarray:
        """A number, an array or a variable, in the dtype and layout of the value `like` that it is combined with."""
        return stored_array(to_numpy(x, like.dtype), like)

    def output(self, onnx: ir.Value, like: Value | None = None, index: int = 0) -> Value:
        """The result `onnx` as the call's output: of its shape, stored as `like` is if that has as many axes."""
        spec = self.outputs[index]
        if like is not None and like.rank == len(spec.shape):
            return Value(onnx, tuple(spec.shape), spec.dtype, like.order, like.flattened)
        return Value(onnx, tuple(spec.shape), spec.dtype)

    def activate(self, value: Value) -> Value:
        """What the layer's `activation` makes of `value`."""
        activation = getattr(self.operation, "activation", None)
        return value if activation is None else self.emit(activation, value)

    # What structures of layers need.

    def arrange(self, value: Value, order: Order | None = None) -> Value:
        """`value` stored in `order`, by default as Keras has it."""
        return self.builder.arrange(value, order or keras_order(value.rank), self.path)

    def reshape(self, x: Value | ir.Value, dims: Sequence[int]) -> ir.Value:
        """A Reshape; 0 copies the axis at this place, one -1 is what remains."""
        return self.builder.reshape(x.onnx if isinstance(x, Value) else x, dims, self.path)

    def cast(self, x: Value, dtype: str) -> Value:
        """`x` in another dtype."""
        dtype = array_dtype(dtype).name
        if x.dtype == dtype:
            return x
        return x.with_onnx(self.op("Cast", x, to=DTYPES[dtype].value), dtype)

    def supports(self, opset: int) -> bool:
        """Whether an operator of `opset` may be used in the place of older ones."""
        return self.builder.supports(opset)

    def emit(
        self, operation: Any, *args: Any, outputs: Sequence[Any] | None = None, inner: str = "", **kwargs: Any
    ) -> Any:
        """Write another layer, operation or activation function, under this one's name.

        A function of one tensor without an emitter is traced, and what it calls is written.

        Args:
            operation: it.
            *args, **kwargs: those of its `call`.
            outputs: shapes and dtypes of its outputs; by default that of its first argument.
            inner: its name within this layer; needed if it has weights.

        Returns:
            One `Value`, or a list of them.

        Raises:
            NotExpressibleError: it has no emitter, and is no function that can be traced.
        """
        operation = self._stand_ins.get(id(operation), operation)
        entry = find_emitter(operation)
        if entry is None and callable(operation) and not isinstance(operation, keras.Operation):
            (x,) = args
            (y,) = self.emit_graph(trace_function(operation, x.shape, x.dtype), x)
            return y
        if entry is None:
            name = getattr(operation, "__name__", type(operation).__name__)
            raise NotExpressibleError(f"uses {name}, which has no emitter")
        args, kwargs = self.arrange_inputs(entry, operation, args, kwargs)
        path = f"{self.path}/{plain_name(inner)}" if inner else self.path
        emission = Emission(self.builder, path, operation, outputs or [args[0]], record=self._record)
        return emission.run(entry, args, kwargs)

    def emit_graph(self, graph: LayerGraph, *inputs: Value) -> list[Value]:
        """Write what a flat graph computes, one call after the other: its outputs.

        Raises:
            NotExpressibleError: one of its operations cannot be written.
        """

        def emit(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value | list[Value]:
            return self.emit(call.operation, *args, outputs=call.outputs, inner=call.path, **kwargs)

        return tree.flatten(Interpreter(graph).run(inputs, emit))

    def arrange_inputs(self, entry: Emitter, operation: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments, their values stored as the emitter `entry` wants them."""
        values = values_in(args, kwargs)
        orders = entry.orders(operation, values)
        if orders is None:
            return args, kwargs
        remaining = iter([self.arrange(v, order) for v, order in zip(values, orders, strict=True)])
        return tree.map_structure(lambda x: next(remaining) if isinstance(x, Value) else x, (args, kwargs))

    def run(self, entry: Emitter, args: Any, kwargs: Any) -> Value | list[Value]:
        """Call the emitter function and describe what it returns."""
        result = entry.function(self, self.operation, *args, **kwargs)
        first = next(iter(values_in(args, kwargs)), None)
        several = isinstance(result, list)
        values = [
            y if isinstance(y, Value) else self.output(y, first, i)
            for i, y in enumerate(result if several else [result])
        ]
        for value in values:
            self.builder.annotate(value)
        return values if several else values[0]

    def apply(self, name: str, x: Value) -> Value:
        """A tensor within the layer, or what a wrapper makes of it: quantized."""
        return self._within[name](x) if name in self._within else x

    def wrapped(
        self, operation: Any, weight_quantizers: dict[str, WeightQuantizer], arrays: Mapping[str, np.ndarray]
    ) -> Emission:
        """An emission for the layer inside a wrapper, with quantized weights, and some replaced."""
        return Emission(self.builder, self.path, operation, self.outputs, weight_quantizers, self._record, arrays)

    def record(self, quantizer: ActivationQuantizer, integers: Value) -> None:
        """Note that `integers` is what `quantizer` computes, for verification."""
        if self._record is not None:
            self._record(quantizer, integers)


def values_in(args: Any, kwargs: Any) -> list[Value]:
    """The values among the arguments of a call, in order."""
    return [x for x in tree.flatten((args, kwargs)) if isinstance(x, Value)]


def to_numpy(x: Any, dtype: str) -> np.ndarray:
    """A number, array, tensor or variable of any backend as a numpy array in the dtype that is stored."""
    if isinstance(x, np.ndarray | np.generic | int | float | bool | list | tuple):
        array = np.asarray(x)
    else:
        array = keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(x))
    return array.astype(array_dtype(dtype), copy=False)


def _per_channel(array: np.ndarray, varies: bool, axis: int | None, name: str) -> np.ndarray:
    """Scales or zero points that were broadcast to a whole weight, reduced to one number a channel, or to one."""
    if not varies:
        return array.ravel()[0]
    if axis is None:
        raise NotExpressibleError(f"has several scales for {name}, which here can have only one")
    by_channel = np.moveaxis(array, axis, 0)
    vector = by_channel[(slice(None),) + (0,) * (array.ndim - 1)]
    if not np.array_equal(by_channel, np.broadcast_to(vector.reshape(-1, *[1] * (array.ndim - 1)), by_channel.shape)):
        raise NotExpressibleError(
            f"has scales for {name} that differ along other axes than that of the output channels"
        )
    return vector


def plain_name(name: str) -> str:
    """A name as ONNX tools like it: letters, digits and _ . / - only."""
    return re.sub(r"[^\w./-]", "_", name)
