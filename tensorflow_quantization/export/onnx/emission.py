"""`Emission`: an emitter appends the ONNX nodes of one layer through it."""

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
from tensorflow_quantization.export.onnx.quantized_weights import write_weight
from tensorflow_quantization.export.onnx.registry import Emitter, find_emitter
from tensorflow_quantization.export.onnx.values import Order, Value, keras_order, stored_array
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter
from tensorflow_quantization.model.weights import merged_array, owner_of, substitutes
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.text.warn import converting


class Emission:
    """Appends the ONNX nodes of one call of a layer. The export creates it and passes it to the layer's emitter.

    Args:
        builder: the `Builder` of the ONNX graph.
        path: the layer's name, after the names of the models that contain it: "backbone/conv". Node names start with
            it.
        operation: the layer, the `keras.ops` operation or the activation function.
        outputs: for each output of the call, an object with `shape` and `dtype`, such as a `keras.KerasTensor`.
        weight_quantizers: the quantizers of the layer's weights, by attribute name. Default: none.
        record: called with each activation quantizer that is written and with its integers. Default: not called.
        arrays: arrays that replace weights of the layer, by attribute name. Default: none.
        stand_ins: what is emitted for a sublayer, by the sublayer's id: its wrapper. Default: the sublayers themselves.
        within: functions for tensors inside the layer, by name, see `apply`. Default: none.
        constants: values of the file that stand for variables, by the variable's id. Default: none.

    Examples:
        >>> output = keras.KerasTensor((None, 3))
        >>> e = Emission(Builder(), "double", keras.layers.Identity(), [output])
        >>> x = e.builder.input("x", (None, 3), "float32")
        >>> e.op("Add", x, x).name
        'double/Add'
        >>> e.output(e.op("Add", x, x)).shape
        (None, 3)
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
        constants: Mapping[int, Value] | None = None,
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
        self._constants = constants or {}

    def op(self, op_type: str, *inputs: Any, since: int = 13, name: str = "", **attributes: Any) -> ir.Value:
        """Append an ONNX operator with one output, and return this output.

        Args:
            op_type: name of the operator, such as "Conv".
            *inputs: `Value`s, results of `op`, NumPy arrays, or numbers (stored as float32 or int64 scalars). `None`
                leaves out an optional input.
            since: the first opset that has the operator. Default: 13.
            name: name of the node within the layer. Default: `op_type`.
            **attributes: attributes of the operator; an attribute that is `None` is left out.

        Returns:
            The output, an `onnx_ir.Value`.

        Raises:
            OpsetError: `export_onnx` was called with an `opset` older than `since`.
        """
        self.builder.require(since, f"{op_type}, an operator of {self.path!r},")
        return self.builder.node(op_type, inputs, attributes, f"{self.path}/{name or op_type}")[0]

    def split(self, x: Any, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        """Append a Split, and return its outputs.

        Args:
            x: a `Value`, or a result of `op`.
            sizes: the size of each part along `axis`.
            axis: the axis of the ONNX tensor. `Value.position` converts an axis of Keras.

        Returns:
            One `onnx_ir.Value` for each size.
        """
        arguments = [x, np.asarray(sizes, np.int64)]
        return self.builder.node("Split", arguments, {"axis": axis}, f"{self.path}/Split", len(sizes))

    def array(self, name: str) -> np.ndarray | None:
        """A weight of the layer as a float32 array in Keras' axis order.

        Args:
            name: attribute name of the weight, such as "kernel".

        Returns:
            The array; `None` if the layer has no such weight.
        """
        if name in self._arrays:
            return self._arrays[name]
        owner, attribute = owner_of(self.operation, name)
        return None if getattr(owner, attribute, None) is None else merged_array(owner, attribute)

    def weight(
        self,
        name: str,
        transform: Callable[[np.ndarray], np.ndarray] = lambda w: w,
        axis: int | None = None,
        stored_as: str | None = None,
    ) -> ir.Value | None:
        """A weight of the layer as a constant. A quantized weight is stored as integers with a DequantizeLinear.

        Args:
            name: attribute name of the weight, such as "kernel".
            transform: converts the array from Keras' axis order to the order of the ONNX operator. It may move
                elements (transpose, reshape, permute), but not compute with them. Default: no change.
            axis: the axis of the output channels in the transformed weight. Needed for per-channel scales.
            stored_as: name of the constant within the layer. Default: `name`.

        Returns:
            The constant, an `onnx_ir.Value`; `None` if the layer has no such weight.

        Raises:
            NotExpressibleError: the scales vary along an axis other than `axis`, or within blocks of its rows.
        """
        array = self.array(name)
        if array is None:
            return None
        quantizer = self._weight_quantizers.get(name)
        stored_as = stored_as or name
        if quantizer is None:
            return self.builder.shared_initializer(f"{self.path}/{stored_as}", transform(array))
        return write_weight(self, quantizer, array, transform, axis, stored_as)

    def stored_weights(self) -> list[tuple[keras.Variable, np.ndarray]]:
        """The variables of quantized weights, each with its value in the file."""
        return [
            pair
            for name, quantizer in self._weight_quantizers.items()
            for pair in substitutes(self.operation, name, quantizer.dequantized(merged_array(self.operation, name)))
        ]

    def is_in_blocks(self, name: str) -> bool:
        """Whether the weight with this attribute name is quantized in blocks."""
        return name in self._weight_quantizers and self._weight_quantizers[name].scheme.block_size is not None

    def is_quantized(self, name: str) -> bool:
        """Whether the weight with this attribute name is quantized."""
        return name in self._weight_quantizers

    def value(self, x: Any, dtype: str) -> Value:
        """A tensor argument as a `Value` of `dtype`; an array or variable becomes a constant in Keras' axis order."""
        x = self.stand_in(x)
        if isinstance(x, Value):
            return self.cast(x, dtype)
        array = to_numpy(x, dtype)
        if isinstance(x, keras.Variable):
            return Value(self.stored(x.name, array), array.shape, dtype)
        return Value(self.builder.constant(array), array.shape, dtype)

    def stand_in(self, x: Any) -> Any:
        """The `Value` of the file that stands for a variable; `x` itself if there is none."""
        return self._constants.get(id(x), x)

    def stored(self, name: str, array: np.ndarray) -> ir.Value:
        """An array as a constant that all operations of the same layer share.

        Recurrent layers that are written step by step use each weight once in each step.
        """
        return self.builder.shared_initializer(f"{self.path.rpartition('/')[0] or self.path}/{plain_name(name)}", array)

    def constant(self, x: Any, like: Value) -> np.ndarray:
        """A number, array or variable as an array with dtype and axis order of `like`, which it is combined with."""
        return stored_array(to_numpy(x, like.dtype), like)

    def output(self, onnx: ir.Value, like: Value | None = None, index: int = 0) -> Value:
        """A `Value` for an output of the call, with the shape and dtype that Keras computed for it.

        Args:
            onnx: the tensor, a result of `op`.
            like: a value with the same axis order, if it has the same rank. Default: Keras' order.
            index: which output of the call. Default: 0.

        Returns:
            The `Value`, for an emitter to return.
        """
        spec = self.outputs[index]
        if like is not None and like.rank == len(spec.shape):
            return Value(onnx, tuple(spec.shape), spec.dtype, like.order, like.flattened)
        return Value(onnx, tuple(spec.shape), spec.dtype)

    def activate(self, value: Value) -> Value:
        """`value` after the layer's `activation`."""
        activation = getattr(self.operation, "activation", None)
        return value if activation is None else self.emit(activation, value)

    # What structures of layers need.

    def arrange(self, value: Value, order: Order | None = None) -> Value:
        """`value` stored in `order`, by default as Keras has it."""
        return self.builder.arrange(value, order or keras_order(value.rank), self.path)

    def reshape(self, x: Value | ir.Value, dims: Sequence[int]) -> ir.Value:
        """Append a Reshape, and return its output.

        Args:
            x: a `Value`, or a result of `op`.
            dims: the new shape. 0 copies the size of the same axis of `x`; one axis may be -1, for all that remains.

        Returns:
            The output, an `onnx_ir.Value`.
        """
        return self.builder.reshape(x.onnx if isinstance(x, Value) else x, dims, self.path)

    def sizes(self, sizes: Sequence[Any]) -> Any:
        """Sizes or indices as an int64 vector: an array, or an `onnx_ir.Value` if a size is a `Value`."""
        if not any(isinstance(size, Value) for size in sizes):
            return np.asarray(sizes, np.int64)
        parts = [self._one(size) if isinstance(size, Value) else np.asarray([size], np.int64) for size in sizes]
        return self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def _one(self, size: Value) -> ir.Value:
        """A size as a vector of one."""
        size = self.cast(size, "int64")
        # ONNX infers the shape of what reads an Unsqueeze of a size, and not of what reads a Reshape.
        return self.reshape(size, [1]) if size.rank else self.op("Unsqueeze", size, np.asarray([0], np.int64))

    def cast(self, x: Value, dtype: str) -> Value:
        """`x` in another dtype; `x` itself if it has this dtype.

        Args:
            x: the value.
            dtype: the dtype in Keras, such as "int32". All float dtypes are stored as float32.

        Returns:
            A `Value` with the shape and order of `x`.
        """
        dtype = array_dtype(dtype).name
        if x.dtype == dtype:
            return x
        return x.with_onnx(self.op("Cast", x, to=DTYPES[dtype].value), dtype)

    def supports(self, opset: int) -> bool:
        """Whether the file may use an operator of `opset` that older operators can replace."""
        return self.builder.supports(opset)

    def emit(
        self, operation: Any, *args: Any, outputs: Sequence[Any] | None = None, inner: str = "", **kwargs: Any
    ) -> Any:
        """Write another layer, operation or activation function as a part of this layer.

        An activation function without an emitter is traced, and the operations that it calls are written.

        Args:
            operation: the other layer, operation or function.
            *args, **kwargs: the arguments of its `call`.
            outputs: shapes and dtypes of its outputs, as in `Emission`. Default: one output like the first argument.
            inner: its name within this layer. Needed if it has weights.

        Returns:
            One `Value`, or a list of `Value`s if there are several outputs.

        Raises:
            NotExpressibleError: `operation` has no emitter, and cannot be traced.
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
        emission = Emission(
            self.builder, path, operation, outputs or [args[0]], record=self._record, constants=self._constants
        )
        return emission.run(entry, args, kwargs)

    def emit_graph(
        self, graph: LayerGraph, *inputs: Value, constants: Mapping[int, Value] | None = None
    ) -> list[Value]:
        """Write each call of a flat graph, and return the outputs of the graph.

        Args:
            graph: the graph.
            *inputs: its inputs.
            constants: values of the file that stand for variables, by the variable's id. Default: none.

        Raises:
            NotExpressibleError: an operation of the graph cannot be written.
        """

        def emit(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value | list[Value]:
            return self.emit(call.operation, *args, outputs=call.outputs, inner=call.path, **kwargs)

        before, self._constants = self._constants, {**self._constants, **(constants or {})}
        try:
            return tree.flatten(Interpreter(graph).run(inputs, emit))
        finally:
            self._constants = before

    def arrange_inputs(self, entry: Emitter, operation: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments, with each value in the axis order that the emitter `entry` needs."""
        values = values_in(args, kwargs)
        orders = entry.orders(operation, values)
        if orders is None:
            return args, kwargs
        remaining = iter([self.arrange(v, order) for v, order in zip(values, orders, strict=True)])
        return tree.map_structure(lambda x: next(remaining) if isinstance(x, Value) else x, (args, kwargs))

    def run(self, entry: Emitter, args: Any, kwargs: Any) -> Value | list[Value]:
        """Call the emitter function, and return its results as `Value`s with shape and dtype."""
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
        """A tensor inside the layer, quantized if the layer's wrapper has a quantizer with this name."""
        return self._within[name](x) if name in self._within else x

    def wrapped(
        self, operation: Any, weight_quantizers: dict[str, WeightQuantizer], arrays: Mapping[str, np.ndarray]
    ) -> Emission:
        """An emission for the layer inside a wrapper, with quantizers for weights and arrays that replace weights."""
        return Emission(self.builder, self.path, operation, self.outputs, weight_quantizers, self._record, arrays)

    def record(self, quantizer: ActivationQuantizer, integers: Value) -> None:
        """Note the integers of `quantizer`, for verification."""
        if self._record is not None:
            self._record(quantizer, integers)


def values_in(args: Any, kwargs: Any) -> list[Value]:
    """The values among the arguments of a call, in order."""
    return [x for x in tree.flatten((args, kwargs)) if isinstance(x, Value)]


def to_numpy(x: Any, dtype: str) -> np.ndarray:
    """A number, array, tensor or variable of any backend as a NumPy array, in the dtype in which `dtype` is stored."""
    if isinstance(x, np.ndarray | np.generic | int | float | bool | list | tuple):
        array = np.asarray(x)
    else:
        with converting():
            array = keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(x))
    return array.astype(array_dtype(dtype), copy=False)


def plain_name(name: str) -> str:
    """The name with letters, digits and _ . / - only: some ONNX tools reject other characters."""
    return re.sub(r"[^\w./-]", "_", name)
