"""Whether a file was written from a model as it is now: its quantizers and its quantized weights are the model's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.litert.file import layer_among, unpacked
from tensorflow_quantization.export.onnx.emission import plain_name
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.onnx_graph.queries import constant, is_dequantize, is_quantize, operand
from tensorflow_quantization.text.messages import shortened
from tensorflow_quantization.wrappers import float_path

Array = np.ndarray

#: Scales may differ by this part: float16 rounds to 1/2048.
_TOLERANCE = 1e-3
#: Another processor may round this part of the weights otherwise.
_ROUNDED = 1e-3
_ADVICE = "Pass the model that was exported, or export this one again."


class Stored(NamedTuple):
    """What a file stores of a quantized tensor.

    Attributes:
        scale: its scales.
        zero_point: its zero points; 0: there is none.
        integers: the quantized weights; `None` for a tensor that the file computes.
    """

    scale: Array
    zero_point: Array
    integers: Array | None


def stored_in_onnx(graph: ir.Graph) -> dict[str, Stored]:
    """Returns what a graph stores of each tensor that it quantizes, and of its quantized weights, by their names."""
    found = {}
    for node in graph:
        scale = constant(operand(node, 1))
        integers = constant(operand(node, 0)) if is_dequantize(node) else None
        if scale is not None and (is_quantize(node) or integers is not None):
            zero_point = constant(operand(node, 2))
            found[node.outputs[0].name or ""] = Stored(
                scale, np.zeros(1) if zero_point is None else zero_point.astype(np.float64), integers
            )
    return found


def stored_in_litert(data: bytes) -> dict[str, Stored]:
    """Returns what a file stores of each quantized tensor that has the name of a layer.

    By its name, and by its shape if the file computes it: one layer may have several such tensors with numbered names,
    and additional outputs change the numbers.
    """
    model = unpacked(data)
    dtypes = {3: np.uint8, 7: np.int16, 9: np.int8}  # UINT8, INT16 and INT8 of the schema
    found = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        name, quantization = tensor.name.decode(), tensor.quantization
        if "/" not in name or tensor.type not in dtypes or quantization is None or quantization.scale is None:
            continue
        buffer = model.buffers[tensor.buffer].data
        integers = None if buffer is None else np.asarray(buffer, np.uint8).view(dtypes[tensor.type])
        shape = "weights" if integers is not None else "x".join(map(str, tensor.shape))
        found[f"{name} {shape}"] = Stored(np.asarray(quantization.scale), np.asarray(quantization.zeroPoint), integers)
    return found


def check_origin(path: object, graph: LayerGraph, model: dict[str, Stored], file: dict[str, Stored]) -> None:
    """Raises an error if a file was not written from a model as it is now.

    Args:
        path: the path of the file.
        graph: the flat graph of the model.
        model: what a file of the model stores.
        file: what the file stores. A tensor that only one of the two has is not compared.

    Raises:
        ValueError: a quantizer or weights differ; the message names the layers.
    """
    both = [(name, ours, file[name]) for name, ours in model.items() if name in file]
    ranges = [name for name, ours, theirs in both if ours.integers is None and not _same_range(ours, theirs)]
    weights = [name for name, ours, theirs in both if not _same_weights(ours, theirs)]
    if ranges:
        raise ValueError(
            f"{path} was not written from {graph.model.name!r} as it is now: the ranges of quantizers in "
            f"{_layers(ranges, graph)} are others, as of another model or calibration. {_ADVICE}"
        )
    if weights:
        raise ValueError(
            f"{path} was not written from {graph.model.name!r} as it is now: the quantized weights of "
            f"{_layers(weights, graph)} are others, as before a training. {_ADVICE}"
        )


def _same_range(ours: Stored, theirs: Stored) -> bool:
    return all(
        one.shape == other.shape and np.allclose(one, other, rtol=_TOLERANCE, atol=0)
        for one, other in ((ours.scale, theirs.scale), (ours.zero_point, theirs.zero_point))
    )


def _same_weights(ours: Stored, theirs: Stored) -> bool:
    if ours.integers is None or theirs.integers is None:
        return ours.integers is theirs.integers
    if ours.integers.shape != theirs.integers.shape or not _same_range(ours, theirs):
        return False
    return bool(np.mean(ours.integers != theirs.integers) <= _ROUNDED)


def _layers(names: Iterable[str], graph: LayerGraph) -> str:
    """Returns the paths, in the float model, of the layers that tensors of a file belong to, each once."""
    paths = {plain_name(call.path): call.path for call in sorted(graph.calls, key=lambda call: -len(call.path))}
    layers = [layer_among(name, paths) for name in names]
    return shortened(list(dict.fromkeys(float_path(paths.get(layer, layer)) for layer in layers)))
