"""Writes a file to a temporary directory, and moves it to its path when it is complete.

The weights are written one by one. `onnx.save` would copy all of them twice in memory: into a protobuf message, and
into the bytes of that message.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from tensorflow_quantization._version import __version__
from tensorflow_quantization.export.onnx.metadata import PRODUCER, properties

#: A protobuf message holds less than 2 GB; above this, weights go to a second file.
_LARGEST_FILE = 2**31 - 2**20


def to_model(graph: ir.Graph, target: str | None = None) -> ir.Model:
    """The graph as a model with producer, versions and target in its metadata."""
    opset = graph.opset_imports[""]
    return ir.Model(
        graph,
        ir_version=onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]),
        producer_name=PRODUCER,
        producer_version=__version__,
        metadata_props=properties(target),
    )


def save(model: ir.Model, path: Path) -> None:
    """Write `model`. The weights of a model that is too large for one file go to `<path>.data`."""
    weights = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    if sum(weight.nbytes for weight in weights) > _LARGEST_FILE:
        ir.save(model, path, external_data=f"{path.name}.data")
        return
    with path.open("wb") as file:
        _write(model, file)


def _write(model: ir.Model, file: BinaryIO) -> None:
    """Write the protobuf message of `model`.

    A message is a sequence of fields in any order. So the fields of the graph are written in two groups: first all
    fields but the weights, then each weight, which is a message that ends with its data.
    https://protobuf.dev/programming-guides/encoding/
    """
    initializers = dict(model.graph.initializers)
    model.graph.initializers.clear()
    try:
        message = ir.to_proto(model)
    finally:
        model.graph.initializers.update(initializers)
    graph = message.graph.SerializeToString()
    message.ClearField("graph")
    weights = [(_without_data(v), v.const_value) for v in initializers.values() if v.const_value is not None]
    prefixes = [_prefix(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, len(head) + w.nbytes) + head for head, w in weights]
    size = len(graph) + sum(map(len, prefixes)) + sum(weight.nbytes for _, weight in weights)
    file.write(message.SerializeToString() + _prefix(onnx.ModelProto.GRAPH_FIELD_NUMBER, size) + graph)
    for prefix, (_, weight) in zip(prefixes, weights, strict=True):
        file.write(prefix)
        file.write(weight.tobytes())


def _without_data(value: ir.Value) -> bytes:
    """The bytes of a constant's message up to its data."""
    tensor = value.const_value
    assert tensor is not None
    head = onnx.TensorProto(name=value.name, data_type=tensor.dtype.value, dims=tensor.shape.numpy())
    return head.SerializeToString() + _prefix(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, tensor.nbytes)


def _prefix(field: int, length: int) -> bytes:
    """The bytes before the `length` bytes of a field: number and wire type, then the length, as varints."""
    numbers = [field << 3 | 2, length]
    encoded = bytearray()
    for number in numbers:
        while number > 0x7F:
            encoded.append(number & 0x7F | 0x80)
            number >>= 7
        encoded.append(number)
    return bytes(encoded)
