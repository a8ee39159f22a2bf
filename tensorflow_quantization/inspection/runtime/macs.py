"""Count the multiply-accumulates of ONNX nodes, from the shapes that ONNX infers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.files import with_shapes
from tensorflow_quantization.onnx_graph.operators import FACTORS, MULTIPLYING, RECURRENT
from tensorflow_quantization.onnx_graph.queries import attribute, operand
from tensorflow_quantization.text.messages import did_you_mean

InputShapes = Mapping[str, Sequence[int]] | Sequence[int]


def with_input_shapes(model: onnx.ModelProto, input_shapes: InputShapes | None = None) -> onnx.ModelProto:
    """A copy of `model` with fixed input shapes, and with the inner shapes that ONNX infers from them.

    Args:
        model: the model; it is not changed.
        input_shapes: a dict from input names to shapes, or the shape of the only input. For an input without a shape
            here, a dynamic first dimension becomes 1.

    Raises:
        ValueError: an input without a shape here has a dynamic dimension besides the first, a shape does not fit its
            input or is no sequence of positive integers, or there is no such input.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    initializers = {tensor.name for tensor in fixed.graph.initializer}
    inputs = [value for value in fixed.graph.input if value.name not in initializers]
    shapes = _by_name(input_shapes, [value.name for value in inputs])
    for value in inputs:
        if value.type.HasField("tensor_type"):
            _fix(value, shapes.get(value.name))
    # The inner shapes in the file belong to the dynamic inputs.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return with_shapes(fixed)


def static_shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs of a model by name, as `with_input_shapes` fixed them."""
    shapes = {
        value.name or "": _shape(value) for value in model.graph.inputs if value.name not in model.graph.initializers
    }
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _by_name(shapes: InputShapes | None, names: list[str]) -> dict[str, Sequence[int]]:
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        if len(names) != 1:
            raise ValueError(f"The model has {len(names)} inputs; pass input_shapes as a dict of {names}.")
        return {names[0]: shapes}
    for name in shapes:
        if name not in names:
            raise ValueError(f"There is no input {name!r}; the inputs are {names}.{did_you_mean(name, names)}")
    return dict(shapes)


def _fix(value: onnx.ValueInfoProto, shape: Sequence[int] | None) -> None:
    tensor = value.type.tensor_type
    if shape is not None and not (isinstance(shape, (Sequence, np.ndarray)) and all(map(_is_size, shape))):
        raise ValueError(
            f"The shape of input {value.name!r} must be a sequence of positive integers, such as (1, 224, 224, 3), got "
            f"{shape!r}."
        )
    known = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    said = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    if shape is None:
        if not tensor.HasField("shape") or None in known[1:]:
            raise ValueError(
                f"Input {value.name!r} has the shape {said if tensor.HasField('shape') else 'unknown'}: pass "
                f"input_shapes={{{value.name!r}: (...)}} with a number for each dimension, or on the command line "
                f"--input-shape {value.name}:1x224x224x3."
            )
        shape = [1 if dim is None else dim for dim in known]
    fits = not tensor.HasField("shape") or (
        len(shape) == len(known) and all(dim in (None, given) for dim, given in zip(known, shape, strict=True))
    )
    if not fits:
        raise ValueError(f"Input {value.name!r} has the shape {said}; {tuple(shape)} does not fit.")
    del tensor.shape.dim[:]
    for dim in shape:
        tensor.shape.dim.add().dim_value = int(dim)


def _is_size(dim: object) -> bool:
    return isinstance(dim, (int, np.integer)) and not isinstance(dim, bool) and int(dim) > 0


def macs(node: ir.Node) -> int | None:
    """The number of multiply-accumulates of a node: 0 if it does not multiply, `None` if it is unknown."""
    if node.op_type in RECURRENT:
        return _recurrent_macs(node)
    if node.op_type == "Einsum":
        return _einsum_macs(node)
    if node.op_type in MULTIPLYING - FACTORS.keys():
        return None
    if node.op_type not in FACTORS:
        return 0
    left, right = (_shape(operand(node, index)) for index in FACTORS[node.op_type])
    output = _shape(node.outputs[0])
    if node.op_type == "ConvTranspose":
        return None if left is None or right is None else math.prod(left) * math.prod(right[1:])
    if "Conv" in node.op_type:
        return None if output is None or right is None else math.prod(output) * math.prod(right[1:])
    if output is None or left is None:
        return None
    summed = left[0] if node.op_type == "Gemm" and attribute(node, "transA", 0) else left[-1]
    return math.prod(output) * summed


def _recurrent_macs(node: ir.Node) -> int | None:
    """Each step multiplies the inputs and the state by the weights of all gates, in each direction."""
    steps = _steps(operand(node, 0))
    weights = [_shape(operand(node, index)) for index in (1, 2)]
    if steps is None or None in weights:
        return None
    return steps * sum(math.prod(shape) for shape in weights if shape)


def _steps(x: ir.Value | None) -> int | None:
    """The steps of all sequences of a batch, (time, batch, features); `None` if their shape is unknown.

    Of sequences with a mask, the exporter sorts the steps by indices whose number ONNX does not infer, and may add a
    feature: the steps are as many as before. A runtime that gets the lengths of the sequences computes fewer.
    """
    shape = _shape(x)
    if shape is not None:
        return shape[0] * shape[1]
    producer = None if x is None else x.producer()
    if producer is None or producer.op_type not in ("Concat", "GatherElements"):
        return None
    return _steps(producer.inputs[0])


def _einsum_macs(node: ir.Node) -> int | None:
    """Each combination of the indices of the equation is multiplied once for each operand after the first."""
    equation = attribute(node, "equation", "").replace(" ", "")
    terms, shapes = equation.partition("->")[0].split(","), [_shape(value) for value in node.inputs]
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=False):
        if shape is None or len(term) != len(shape):  # an ellipsis stands for any number of axes
            return None
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values()) * (len(terms) - 1)


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    shape = None if value is None else value.shape
    if shape is None or not shape.is_static():
        return None
    return tuple(int(dim) for dim in shape)
