"""Whether a file was written from a model as it is now: its quantizers, weights and other constants are the model's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

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
#: Another processor may compute a bias with this error, as a part of its largest element.
_FLOAT32 = 1e-6
_HALF = np.finfo(np.float16)
#: Products in LiteRT, by their codes in the schema: where among the inputs the tensor, the kernel and the bias are.
_PRODUCTS = {3: (0, 1, 2), 4: (0, 1, 2), 9: (0, 1, 2), 67: (2, 1, 3)}
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


class Contents(NamedTuple):
    """What a file stores.

    Attributes:
        quantized: each quantized tensor and each constant of integers with scales, by its name.
        constants: other floats, and integers without scales, by the name of their reader or by their own.
    """

    quantized: dict[str, Stored]
    constants: dict[str, Array]


def stored_in_onnx(graph: ir.Graph) -> Contents:
    """Returns what a graph stores.

    A constant has the name of the node that reads it and its position there: a small constant has no name of its own,
    and nodes that read equal ones share it.

    Args:
        graph: the graph of a file, or the lowered graph of a model.
    """
    quantized, constants = {}, {}
    for node in graph:
        scale = constant(operand(node, 1))
        integers = constant(operand(node, 0)) if is_dequantize(node) else None
        if scale is not None and (is_quantize(node) or integers is not None):
            zero_point = constant(operand(node, 2))
            quantized[node.outputs[0].name or ""] = Stored(
                scale, np.zeros(1) if zero_point is None else zero_point.astype(np.float64), integers
            )
        elif not is_quantize(node) and not is_dequantize(node):
            for index, value in enumerate(node.inputs):
                array = constant(value)
                if array is not None and (_is_float(array) or _is_byte(array)):
                    constants[f"{node.name} {index}"] = array
    return Contents(quantized, constants)


def stored_in_litert(data: bytes) -> Contents:
    """Returns what a file stores in tensors that have the name of a layer, and in the biases of their readers.

    By the tensor's name, and by its shape if the file computes it: one layer may have several such tensors with
    numbered names, and additional outputs change the numbers. A bias has the name of the kernel beside it.

    Args:
        data: the bytes of the file.
    """
    model = unpacked(data)
    dtypes = {3: np.uint8, 7: np.int16, 9: np.int8}  # UINT8, INT16 and INT8 of the schema
    quantized, constants = {}, {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        name, array = tensor.name.decode(), _array(model, tensor)
        if "/" not in name:
            continue
        if tensor.type in dtypes and (scale := _scale(tensor)) is not None:
            shape = "weights" if array is not None else "x".join(map(str, tensor.shape))
            quantized[f"{name} {shape}"] = Stored(scale, np.asarray(tensor.quantization.zeroPoint), array)
        elif array is not None and _is_float(array):
            constants[name] = array
    return Contents({**quantized, **_biases(model)}, constants)


def _biases(model: Any) -> dict[str, Stored]:
    """Returns the biases of the products of integers, by the names of their kernels without the numbers at the end.

    The converter leaves out a bias of zeros, and numbers the names otherwise then. Kernels of one name are left out.
    """
    found: dict[str, dict[int, Stored]] = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            positions = _PRODUCTS.get(max(code.builtinCode, code.deprecatedBuiltinCode))
            if positions is None:
                continue
            indices = [operator.inputs[i] if i < len(operator.inputs) else -1 for i in positions]
            x, kernel = (graph.tensors[i] for i in indices[:2])
            scales, name = (_scale(x), _scale(kernel)), kernel.name.decode()
            if "/" not in name or scales[0] is None or scales[1] is None:
                continue
            zeros = np.zeros(scales[1].size, np.int32)
            integers = zeros if indices[2] < 0 else _array(model, graph.tensors[indices[2]])
            if integers is not None:
                bias = Stored(scales[0] * scales[1], np.zeros(1), integers)
                found.setdefault(f"{name.rstrip('0123456789')} bias", {})[kernel.buffer] = bias
    return {name: next(iter(biases.values())) for name, biases in found.items() if len(biases) == 1}


def _scale(tensor: Any) -> Array | None:
    quantization = tensor.quantization
    return None if quantization is None or quantization.scale is None else np.asarray(quantization.scale)


def _array(model: Any, tensor: Any) -> Array | None:
    """Returns the constant in a tensor of a `.tflite` file; `None` if the file computes it, or of another dtype."""
    # FLOAT32, INT32, UINT8, INT64, INT16 and INT8 of the schema
    dtype = {0: np.float32, 2: np.int32, 3: np.uint8, 4: np.int64, 7: np.int16, 9: np.int8}.get(tensor.type)
    buffer = model.buffers[tensor.buffer].data
    return None if buffer is None or dtype is None else np.asarray(buffer, np.uint8).view(dtype)


def _is_float(array: Array) -> bool:
    return array.dtype in (np.float16, np.float32)


def _is_byte(array: Array) -> bool:
    """Whether an array holds weights of 8 bits or less."""
    return array.dtype.itemsize == 1 and array.dtype != np.bool_


def check_origin(path: object, graph: LayerGraph, model: Contents, file: Contents) -> None:
    """Raises an error if a file was not written from a model as it is now.

    Args:
        path: the path of the file.
        graph: the flat graph of the model.
        model: what a file of the model stores.
        file: what the file stores. What only one of the two has is not compared.

    Raises:
        ValueError: a quantizer, weights or other constants differ; the message names the layers.
    """
    both = [(name, ours, file.quantized[name]) for name, ours in model.quantized.items() if name in file.quantized]
    ranges = [name for name, ours, theirs in both if ours.integers is None and not _same_range(ours, theirs)]
    weights = [name for name, ours, theirs in both if not _same_weights(ours, theirs)]
    constants = [
        name
        for name, ours in model.constants.items()
        if name in file.constants and not _same_constant(ours, file.constants[name])
    ]
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
    if constants:
        raise ValueError(
            f"{path} was not written from {graph.model.name!r} as it is now: the float weights of "
            f"{_layers(constants, graph)} are others, as before a training. {_ADVICE}"
        )


def _same_range(ours: Stored, theirs: Stored) -> bool:
    return all(
        one.shape == other.shape and np.allclose(one, other, rtol=_TOLERANCE, atol=0)
        for one, other in ((ours.scale, theirs.scale), (ours.zero_point, theirs.zero_point))
    )


def _same_weights(ours: Stored, theirs: Stored) -> bool:
    if ours.integers is None or theirs.integers is None:
        return ours.integers is theirs.integers
    if ours.integers.shape != theirs.integers.shape:
        return False
    if ours.integers.ndim == 1 and ours.integers.dtype.itemsize >= 4:
        return _same_bias(ours, theirs)
    return _same_range(ours, theirs) and _same_integers(ours.integers, theirs.integers)


def _same_bias(ours: Stored, theirs: Stored) -> bool:
    """Whether two biases of integers agree to one step. Layers with one kernel may read tensors of other scales."""
    one, other = (np.asarray(bias.integers) * bias.scale.astype(np.float64) for bias in (ours, theirs))
    step = np.maximum(ours.scale, theirs.scale)
    return bool((np.abs(one - other) <= (1 + _TOLERANCE) * step + _FLOAT32 * np.abs(one).max(initial=0)).all())


def _same_integers(ours: Array, theirs: Array) -> bool:
    return bool(np.mean(ours != theirs) <= _ROUNDED)


def _same_constant(ours: Array, theirs: Array) -> bool:
    """Whether two constants agree but for rounding; constants of other shapes or kinds are not compared."""
    if ours.shape != theirs.shape or _is_float(ours) != _is_float(theirs) or not ours.size:
        return True
    if not _is_float(ours):
        return _same_integers(ours, theirs)
    half = theirs.dtype == np.float16
    # The export to float16 limits the numbers of masks, and keeps an epsilon above zero.
    limit = float(_HALF.max) if half else np.inf
    one, other = (np.clip(array.astype(np.float64), -limit, limit) for array in (ours, theirs))
    finite = np.abs(one[np.isfinite(one)])
    atol = _TOLERANCE * finite.max(initial=0) + (float(_HALF.smallest_subnormal) if half else 0)
    return np.allclose(one, other, rtol=0, atol=atol, equal_nan=True)


def _layers(names: Iterable[str], graph: LayerGraph) -> str:
    """Returns the paths, in the float model, of the layers that tensors of a file belong to, each once."""
    paths = {plain_name(call.path): call.path for call in sorted(graph.calls, key=lambda call: -len(call.path))}
    layers = [layer_among(name, paths) for name in names]
    return shortened(list(dict.fromkeys(float_path(paths.get(layer, layer)) for layer in layers)))
