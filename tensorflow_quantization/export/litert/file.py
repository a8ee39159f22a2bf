"""Reads a written `.tflite` file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Operators between floats and integers.
_CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})


def float_operators(data: bytes, layers: Iterable[str]) -> dict[str, list[str]]:
    """The types of the operators that compute in float, such as "SOFTMAX", by layer.

    Args:
        data: the bytes of the file.
        layers: the paths of the model's layers. The converter's names start with these paths.
    """
    paths = sorted(layers, key=len, reverse=True)
    found: dict[str, list[str]] = {}
    for kind, name, floats in operators(data):
        if floats:
            found.setdefault(layer_among(name, paths), []).append(kind)
    return found


def layer_among(name: str, layers: Iterable[str]) -> str:
    """The layer that a tensor belongs to, as its name says; the name itself if it begins with no layer.

    Args:
        name: the name of the tensor.
        layers: the paths of layers, the longest first.
    """
    return next((path for path in layers if f"{name}/".startswith((f"{path}/", f"{path}_"))), name)


def is_whole(data: bytes) -> bool:
    """Whether each operator has all tensors that it reads.

    The converter removes the conversion of an output to float for `io_dtype`, also if another operator reads it. LiteRT
    may end the process then.

    Args:
        data: the bytes of the file.
    """
    model = unpacked(data)
    for graph in model.subgraphs:
        given = {*graph.inputs, *(i for operator in graph.operators for i in operator.outputs)}
        for operator in graph.operators:
            # A missing tensor has the index -1; of a product, the third one is the bias, which may be missing.
            inputs = [i for position, i in enumerate(operator.inputs) if i >= 0 or position != 2]
            for i in inputs:
                if i < 0 or (i not in given and model.buffers[graph.tensors[i].buffer].data is None):
                    return False
    return True


def float_ends(data: bytes) -> int:
    """How many inputs and outputs of a file are floats.

    Args:
        data: the bytes of the file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    graph = unpacked(data).subgraphs[0]
    return sum(graph.tensors[i].type == schema.TensorType.FLOAT32 for i in (*graph.inputs, *graph.outputs))


def unpacked(data: bytes) -> Any:
    """A file as the objects of TensorFlow's schema, a `ModelT`.

    Args:
        data: the bytes of the file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))


def is_integer(data: bytes) -> bool:
    """Whether all operators of a file compute in integers.

    Args:
        data: the bytes of the file.
    """
    return not any(floats for _, _, floats in operators(data))


def operators(data: bytes) -> list[tuple[str, str, bool]]:
    """For each operator its type, such as "CONV_2D", its name, and whether it computes in float.

    Args:
        data: the bytes of the file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    types = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = unpacked(data)
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            # The deprecated field has one byte, so newer operators are in the other field.
            kind = types[max(code.builtinCode, code.deprecatedBuiltinCode)]
            tensors = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            copies = kind == "MAXIMUM" and operator.inputs[0] in graph.inputs and operator.outputs[0] in graph.outputs
            floats = (
                kind not in _CONVERSIONS and not copies and any(t.type == schema.TensorType.FLOAT32 for t in tensors)
            )
            constants = [t for t in tensors[: len(operator.inputs)] if model.buffers[t.buffer].data is not None]
            found.append((kind, _name([graph.tensors[operator.outputs[0]], *constants]), floats))
    return found


def _name(tensors: list[Any]) -> str:
    """The name of an operator from its tensors, output first. An output of the file has the name of the signature."""
    # The converter joins the names of fused operators with ";".
    names = [tensor.name.decode().split(";")[0] for tensor in tensors]
    return next((name for name in names if "/" in name), names[0])
