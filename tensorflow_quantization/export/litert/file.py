"""Reads a written `.tflite` file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Operators between floats and integers.
_CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})


def float_operators(data: bytes, layers: Iterable[str]) -> list[str]:
    """The operators that compute in float, as texts with operator type and layer: "SOFTMAX in 'scores'".

    Args:
        data: the bytes of the file.
        layers: the paths of the model's layers. The converter's names start with these paths.
    """
    paths = sorted(layers, key=len, reverse=True)
    rows = []
    for kind, name, floats in operators(data):
        if floats:
            layer = next((path for path in paths if f"{name}/".startswith((f"{path}/", f"{path}_"))), name)
            rows.append(f"{kind} in {layer!r}")
    return rows


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
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
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
