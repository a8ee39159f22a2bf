"""Reads a written `.tflite` file."""

from __future__ import annotations

from typing import Any

#: These stand between floats and integers.
_CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})


def float_operators(data: bytes) -> list[str]:
    """The operators that compute in floats, each as its type and the layer it comes from.

    Args:
        data: of the file.
    """
    return [f"{kind} in {layer!r}" for kind, layer, floats in operators(data) if floats]


def operators(data: bytes) -> list[tuple[str, str, bool]]:
    """Of each operator its type, such as "CONV_2D", the layer it comes from, and whether it computes in floats.

    Args:
        data: of the file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    types = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            # The older of the two fields is one byte.
            kind = types[max(code.builtinCode, code.deprecatedBuiltinCode)]
            tensors = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            floats = kind not in _CONVERSIONS and any(t.type == schema.TensorType.FLOAT32 for t in tensors)
            found.append((kind, _layer(graph.tensors[operator.outputs[0]]), floats))
    return found


def _layer(tensor: Any) -> str:
    """The layer that gives a tensor: the converter joins the names of what it fuses."""
    name = tensor.name.decode().split(";")[0]
    return name.rsplit("/", 1)[0].removeprefix("quant_")
