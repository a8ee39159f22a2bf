"""`Builder`: creates the nodes and constants of an ONNX graph. It knows ONNX, names and layouts, but no Keras layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import OpsetError
from tensorflow_quantization.export.onnx.values import Order, Shape, Value, keras_order, moves_no_data, stored_dtype
from tensorflow_quantization.onnx_graph.queries import layer_of
from tensorflow_quantization.quantizers.scheme import FLOAT8

#: The oldest opset that is written: the first opset with per-channel scales.
MIN_OPSET = 13
#: If the user sets no opset, operators up to this opset are used: every runtime reads it.
AUTOMATIC_OPSET = 17
#: The first opset with numbers of 8 bits in QuantizeLinear and DequantizeLinear.
_FLOAT8_OPSET = 19
#: The first opset with integers of 16 bits there.
_WIDE_OPSET = 21

DTYPES = {
    "float32": ir.DataType.FLOAT,
    "float8_e4m3fn": ir.DataType.FLOAT8E4M3FN,
    "int8": ir.DataType.INT8,
    "uint8": ir.DataType.UINT8,
    "int16": ir.DataType.INT16,
    "uint16": ir.DataType.UINT16,
    "int32": ir.DataType.INT32,
    "uint32": ir.DataType.UINT32,
    "int64": ir.DataType.INT64,
    "uint64": ir.DataType.UINT64,
    "bool": ir.DataType.BOOL,
}


class Builder:
    """Creates nodes and constants with unique names, and converts values to other axis orders.

    Args:
        opset: the opset that the user set; `None` for the oldest opset that the model can use.
        target: the runtime that the file is for; `None` (default) for any runtime.

    Attributes:
        graph: the `onnx_ir.Graph`.
        opset: the opset that the user set, or the opset that the nodes so far need.
        target: the argument `target`.
    """

    def __init__(self, opset: int | None = None, target: str | None = None):
        self.graph = ir.Graph([], [], nodes=[], name="model")
        self.target = target
        self._asked = opset
        self.opset = opset or MIN_OPSET
        self._names: dict[str, int] = {}
        self._constants: dict[tuple, ir.Value] = {}
        self._weights: dict[str, list[ir.Value]] = {}
        self._arranged: dict[tuple[int, Order, Any, Order], Value] = {}

    def supports(self, opset: int) -> bool:
        """Whether an operator of `opset` may replace several older operators. If so, the file needs this opset."""
        if self._asked is not None:
            return self._asked >= opset
        if opset > AUTOMATIC_OPSET:
            return False
        self.opset = max(self.opset, opset)
        return True

    def permits(self, opset: int) -> bool:
        """Whether the user set no opset, or `opset` or a newer one."""
        return self._asked is None or self._asked >= opset

    def require(self, opset: int, what: str) -> None:
        """Note that the file needs `opset` for `what`.

        Raises:
            OpsetError: the user set an older opset.
        """
        if not self.permits(opset):
            raise OpsetError(f"{what} needs ONNX opset {opset} or newer, got opset={self._asked}.")
        self.opset = max(self.opset, opset)

    def require_dtype(self, dtype: str) -> None:
        """Note that the file quantizes to `dtype`.

        Raises:
            OpsetError: the user set an older opset.
        """
        if dtype == FLOAT8:
            self.require(_FLOAT8_OPSET, "FP8")
        elif dtype in ("int16", "uint16"):
            self.require(_WIDE_OPSET, "A tensor of 16 bits")

    def unique(self, name: str) -> str:
        """`name`, with a number appended if the name is in use."""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self.unique(f"{name}_{count}")

    def input(self, name: str, shape: Shape, dtype: str, order: Order | None = None) -> Value:
        """A graph input. Axes of unknown size get names: "batch" for axis 0, `<name>_<axis>` for the others.

        Raises:
            KeyError: ONNX has no such dtype.
        """
        value = Value(ir.Value(name=self.unique(name)), shape, dtype, order or keras_order(len(shape)))
        dims = [_axis_name(name, axis) if shape[axis] is None else shape[axis] for axis in value.order]
        value.onnx.shape = ir.Shape(dims)
        value.onnx.type = ir.TensorType(DTYPES[value.dtype])
        self.graph.inputs.append(value.onnx)
        return value

    def node(
        self, op_type: str, inputs: Sequence[Any], attributes: dict[str, Any], name: str, outputs: int = 1
    ) -> list[ir.Value]:
        """Append a node, and return its outputs, which have the name of the node. `None` attributes are left out."""
        node = self._make(op_type, inputs, attributes, name, outputs)
        self.graph.append(node)
        return list(node.outputs)

    def insert(
        self,
        op_type: str,
        inputs: Sequence[Any],
        attributes: dict[str, Any] | None = None,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
        name: str | None = None,
        like: ir.Value | None = None,
    ) -> ir.Value:
        """Insert a node with one output next to another node.

        Args:
            op_type: the operator.
            inputs: values; numbers and arrays become constants.
            attributes: attributes of the operator; `None` attributes are left out.
            before, after: the other node; exactly one of the two is given.
            name: name of the node and of its output. Default: the layer of the other node, and the operator. A number
                is appended to a name that is in use.
            like: a value with the shape and type of the output. Default: shape and type are not set.

        Returns:
            The output.

        Raises:
            ValueError: not exactly one of `before` and `after` is given.
        """
        other = after if before is None else before
        if other is None or (before is not None and after is not None):
            raise ValueError(f"insert({op_type!r}) needs either before= or after=, a node of the graph.")
        node = self._make(op_type, inputs, attributes or {}, name or f"{layer_of(other)}/{op_type}")
        if after is None:
            self.graph.insert_before(other, node)
        else:
            self.graph.insert_after(other, node)
        (output,) = node.outputs
        if like is not None:
            output.shape, output.type = like.shape, like.type
        return output

    def _make(
        self, op_type: str, inputs: Sequence[Any], attributes: dict[str, Any], name: str, outputs: int = 1
    ) -> ir.Node:
        name = self.unique(name)
        results = [ir.Value(name=name if i == 0 else self.unique(f"{name}_{i}")) for i in range(outputs)]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        values = [self._operand(x) for x in inputs]
        while values and values[-1] is None:
            values.pop()
        return ir.node(op_type, values, attributes, outputs=results, name=name)

    def _operand(self, x: Any) -> ir.Value | None:
        if x is None or isinstance(x, ir.Value):
            return x
        return x.onnx if isinstance(x, Value) else self.constant(x)

    def constant(self, array: Any) -> ir.Value:
        """A small constant. Equal constants are shared. A Python number becomes a float32 or int64 scalar."""
        if isinstance(array, bool | int | float):
            array = np.asarray(array, {bool: np.bool_, int: np.int64, float: np.float32}[type(array)])
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        shared = self._constants.get(key)
        if shared is None or not shared.is_initializer():  # a pass removes constants that nothing reads any more
            name = f"constant_{array.item():g}" if array.size == 1 else "constant"
            self._constants[key] = self.initializer(name, array)
        return self._constants[key]

    def initializer(self, name: str, array: np.ndarray) -> ir.Value:
        """A constant with a unique name, not shared."""
        name = self.unique(name)
        array = np.ascontiguousarray(array) if array.ndim else array
        value = ir.val(name, const_value=ir.Tensor(array, name=name))
        self.graph.register_initializer(value)
        return value

    def shared_initializer(self, name: str, array: np.ndarray) -> ir.Value:
        """A constant with a unique name. A second call with equal name and array returns the first constant."""
        known = self._weights.setdefault(name, [])
        for value in known:
            tensor = value.const_value
            if tensor is not None and np.array_equal(tensor.numpy(), array):
                return value
        known.append(self.initializer(name, array))
        return known[-1]

    def annotate(self, value: Value) -> None:
        """Write shape and dtype of a value into the graph, so that viewers show them.

        Sizes that are not known get no name: ONNX Runtime takes axes of one name for equal, and writes their tensors
        into one buffer, and axis 0 may hold the steps of all samples.
        """
        if value.onnx.shape is None and value.dtype in DTYPES:
            value.onnx.shape = ir.Shape(value.stored_shape)
            value.onnx.type = ir.TensorType(DTYPES[value.dtype])

    def arrange(self, value: Value, order: Order, path: str) -> Value:
        """`value` with axes in `order` and elements in Keras' order. Readers of the same order share a conversion."""
        if value.order == order and value.flattened is None:
            return value
        # Values of one tensor may have different orders: a transposition is only another order.
        key = (id(value.onnx), value.order, value.flattened, order)
        if key not in self._arranged:
            plain = self._unflatten(value, path) if value.flattened is not None else value
            back = self._arranged[key] = self._reorder(plain, order, path)
            self.annotate(back)
            if value.flattened is None:  # converting back returns the original value
                self._arranged.setdefault((id(back.onnx), order, None, value.order), value)
        return self._arranged[key]

    def _reorder(self, value: Value, order: Order, path: str) -> Value:
        if value.order == order:
            return value
        new = Value(value.onnx, value.shape, value.dtype, order)
        dims = reshape_dims(new.stored_shape)
        if moves_no_data(value.shape, value.order, order) and order[0] == value.order[0] == 0 and dims is not None:
            return new.with_onnx(self.reshape(value.onnx, dims, path))
        perm = [value.order.index(axis) for axis in order]
        return new.with_onnx(self.node("Transpose", [value], {"perm": perm}, f"{path}/Transpose")[0])

    def _unflatten(self, value: Value, path: str) -> Value:
        """Undo the flattening, transpose to Keras' order, and flatten again."""
        assert value.flattened is not None
        shape, order = value.flattened
        stored = reshape_dims(tuple(shape[a] for a in order))
        if stored is None:
            raise ValueError(f"Cannot reorder a flattened tensor whose shape {shape} is not known.")
        image = Value(self.reshape(value.onnx, stored, path), shape, value.dtype, order)
        image = self._reorder(image, keras_order(len(shape)), path)
        return Value(self.reshape(image.onnx, [0, -1], path), value.shape, value.dtype)

    def reshape(self, x: ir.Value, dims: Sequence[int], path: str) -> ir.Value:
        """A Reshape. 0 copies the size of the same axis of `x`; one axis may be -1, for all that remains."""
        return self.node("Reshape", [x, np.asarray(dims, np.int64)], {}, f"{path}/Reshape")[0]


def reshape_dims(shape: Shape) -> list[int] | None:
    """The second input of a Reshape to `shape` that keeps axis 0; `None` if several other sizes are unknown."""
    dims = [0, *(-1 if d is None else d for d in shape[1:])]
    return dims if dims.count(-1) <= 1 else None


def array_dtype(dtype: str) -> np.dtype:
    """The NumPy dtype in which a Keras dtype is stored."""
    return np.dtype(stored_dtype(dtype))


def _axis_name(name: str, axis: int) -> str:
    return "batch" if axis == 0 else f"{name}_{axis}"
