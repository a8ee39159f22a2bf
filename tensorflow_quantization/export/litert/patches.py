"""What TensorFlow's converter does not write: changes of a written `.tflite` file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorflow_quantization.export.litert.file import unpacked
from tensorflow_quantization.export.litert.recurrence import StoredKernel

#: Bytes in a file for a tensor and an operator, and for the scale and zero point of a channel.
_OVERHEAD, _PER_SCALE = 250, 12
#: The first version of DEQUANTIZE with a scale for each channel.
_PER_CHANNEL = 5


def with_long_biases(data: bytes) -> bytes:
    """The file with biases of int64 where activations are int16.

    The kernels of LiteRT read such biases, and the converter writes int32 unless it calibrates itself. A kernel does
    not look at the type, so that it would compute with other numbers.

    Args:
        data: the bytes of the file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = unpacked(data)
    for graph in model.subgraphs:
        for operator in graph.operators:
            inputs = [graph.tensors[i] for i in operator.inputs if i >= 0]
            if not any(tensor.type == schema.TensorType.INT16 for tensor in inputs):
                continue
            for bias in inputs:
                if bias.type == schema.TensorType.INT32 and bias.quantization and bias.quantization.scale is not None:
                    values = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.int32)
                    bias.buffer, bias.type = _buffer(model, values.astype(np.int64)), schema.TensorType.INT64
    return _packed(model)


def with_stored_kernels(data: bytes, kernels: Sequence[StoredKernel]) -> bytes:
    """The file with these kernels as int8 and a DEQUANTIZE, where the converter wrote their values as floats.

    Args:
        data: the bytes of the file.
        kernels: of the model. A kernel whose values are not in the file, or whose floats take fewer bytes, is left out.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    found: dict[bytes, tuple[np.ndarray, np.ndarray, int]] = {}
    for integers, scales in kernels:
        values = integers * scales
        if values.nbytes - integers.nbytes < _OVERHEAD + _PER_SCALE * len(scales):
            continue
        found[values.tobytes()] = (integers, scales, integers.ndim - 1)
        first, stored = (np.ascontiguousarray(np.moveaxis(array, -1, 0)) for array in (values, integers))
        found[first.tobytes()] = (stored, scales, 0)
    model = unpacked(data)
    code, before = len(model.operatorCodes), len(model.buffers)
    for graph in model.subgraphs:
        dequantized = []
        for index, tensor in enumerate(list(graph.tensors)):
            held = model.buffers[tensor.buffer].data if tensor.type == schema.TensorType.FLOAT32 else None
            if held is None or (key := np.asarray(held).tobytes()) not in found:
                continue
            integers, scales, axis = found[key]
            if _without_ones(integers.shape) != _without_ones(tensor.shape):
                continue
            axis = axis and len(tensor.shape) - 1  # the kernel of a Conv1D has an axis more, of size 1
            stored = schema.TensorT()
            stored.name, stored.shape, stored.type = tensor.name + b"/integers", tensor.shape, schema.TensorType.INT8
            stored.buffer, tensor.buffer = _buffer(model, integers), 0
            stored.quantization = schema.QuantizationParametersT()
            stored.quantization.scale, stored.quantization.quantizedDimension = scales, axis
            stored.quantization.zeroPoint = np.zeros(len(scales), np.int64)
            graph.tensors.append(stored)
            operator = schema.OperatorT()
            operator.opcodeIndex, operator.inputs, operator.outputs = code, [len(graph.tensors) - 1], [index]
            dequantized.append(operator)
        graph.operators[:0] = dequantized
    if len(model.buffers) == before:
        return data
    model.operatorCodes.append(schema.OperatorCodeT())
    model.operatorCodes[code].builtinCode = schema.BuiltinOperator.DEQUANTIZE
    model.operatorCodes[code].deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    model.operatorCodes[code].version = _PER_CHANNEL
    return _packed(model)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [int(size) for size in shape if size != 1]


def _packed(model: Any) -> bytes:
    import flatbuffers

    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {metadata.buffer for metadata in model.metadata or []}
    for index in range(len(model.buffers)):
        if index not in used:
            model.buffers[index].data = None  # of a tensor that has another now
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _buffer(model: Any, values: np.ndarray) -> int:
    """The index of a new buffer with these values."""
    from tensorflow.lite.python import schema_py_generated as schema

    model.buffers.append(schema.BufferT())
    model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
    return len(model.buffers) - 1
