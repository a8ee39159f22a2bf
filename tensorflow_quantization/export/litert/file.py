"""Reads a written `.tflite` file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

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


def with_long_biases(data: bytes) -> bytes:
    """The file with biases of int64 where activations are int16.

    The kernels of LiteRT read such biases, and the converter writes int32 unless it calibrates itself. A kernel does
    not look at the type, so that it would compute with other numbers.

    Args:
        data: the bytes of the file.
    """
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    for graph in model.subgraphs:
        tensors = [[graph.tensors[i] for i in operator.inputs if i >= 0] for operator in graph.operators]
        for inputs in tensors:
            if not any(tensor.type == schema.TensorType.INT16 for tensor in inputs):
                continue
            for bias in inputs:
                if bias.type == schema.TensorType.INT32 and bias.quantization and bias.quantization.scale is not None:
                    buffer = model.buffers[bias.buffer]
                    values = np.frombuffer(bytes(buffer.data), np.int32).astype(np.int64)
                    model.buffers.append(schema.BufferT())
                    model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
                    bias.buffer, bias.type = len(model.buffers) - 1, schema.TensorType.INT64
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


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
