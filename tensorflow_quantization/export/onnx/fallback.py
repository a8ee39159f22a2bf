"""Layers that cannot be written otherwise: converted alone by tf2onnx, and put in their place.

These are layers that have no emitter and are not made of layers that have, and those whose emitter refuses arguments.
It is optional, and needs the TensorFlow backend, for it converts what TensorFlow records.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
from keras import tree

from tensorflow_quantization.export.errors import NoEmitterError
from tensorflow_quantization.export.onnx.builder import AUTOMATIC_OPSET
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.interpreter import arguments_at_inference, compute
from tensorflow_quantization.model.tracing import changed_variables, changes
from tensorflow_quantization.text.warn import muted
from tensorflow_quantization.wrappers import activation_quantizers, wrappers_in

#: What to install; the error message says so.
PACKAGE = "tf2onnx"
#: What unknown axes have when a conversion is tried: the first, and others.
_SIZES = (2, 6)


def can_fall_back() -> bool:
    """Whether layers without an emitter can be converted all the same."""
    return keras.backend.backend() == "tensorflow" and importlib.util.find_spec(PACKAGE) is not None


def can_replace_emitter(call: Call) -> bool:
    """Whether a call may be converted when its emitter refuses it.

    Not what quantizes, for its integers have to be found in the file, and not what remembers something between calls.
    """
    layer: Any = call.operation
    quantizes = wrappers_in(layer) or activation_quantizers(layer)
    return can_fall_back() and not quantizes and not getattr(layer, "stateful", False)


def convert_call(e: Emission, call: Call, inputs: Sequence[Value], compare: bool = False) -> list[Value]:
    """Write one call through tf2onnx.

    Args:
        e: the emission of the call.
        call: of a layer or an operation.
        inputs: the values of `call.inputs`.
        compare: whether ONNX Runtime, if it is installed, has to compute the same.

    Raises:
        NoEmitterError: tf2onnx cannot convert it, or not to what ONNX Runtime computes; with the reason.
        OpsetError: an opset was asked for that is older than what it converts to.
    """
    values = {id(tensor): value for tensor, value in zip(call.inputs, inputs, strict=True)}
    e.builder.require(AUTOMATIC_OPSET, f"{call.path!r}, which tf2onnx converts,")
    try:
        model = _converted(call, list(values), list(values.values()), compare)
    except Exception as error:
        raise NoEmitterError(f"tf2onnx cannot convert it: {_reason(error)}") from error
    results = _inline(e, model.graph, [e.arrange(value).onnx for value in values.values()])
    return [Value(y, t.shape, t.dtype) for y, t in zip(results, call.outputs, strict=True)]


def _reason(error: Exception) -> str:
    """The line that says what is wrong; TensorFlow puts the lines of code that led there before it."""
    message = f"{type(error).__name__}: {str(error).strip()}"
    lines = [line.strip() for line in message.split("\n")]
    named = [line for line in lines[1:] if re.match(r"\w+Error: ", line)]
    return named[0] if named and lines[0].endswith("in user code:") else lines[0]


def _converted(call: Call, keys: list[int], values: list[Value], compare: bool) -> ir.Model:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2  # has no public name
    from tf2onnx import convert

    operation: Any = call.operation
    changed: list[str] = []

    def run(*arrays: Any) -> list[Any]:
        given = dict(zip(keys, arrays, strict=True))
        args, kwargs = arguments_at_inference(call, lambda t: given[id(t)])
        with keras.StatelessScope() as scope:
            outputs = compute(call, args, kwargs)
        changed.extend(changed_variables(operation, scope))
        return tree.flatten(outputs)

    signature = [tf.TensorSpec(v.shape, v.dtype, name=f"x{i}") for i, v in enumerate(values)]
    function = tf.function(run, input_signature=signature).get_concrete_function()
    # Frozen before: tf2onnx takes tensors that the function holds, as it does arrays, for further inputs.
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    with muted(PACKAGE, logging.CRITICAL):  # of what it cannot convert it prints a traceback, and goes on
        proto, _ = convert.from_graph_def(
            frozen.graph.as_graph_def(),
            input_names=[x.name for x in frozen.inputs],
            output_names=[y.name for y in frozen.outputs],
            opset=AUTOMATIC_OPSET,
        )
    if changed:
        raise ValueError(changes(changed))
    for promised, y in zip(call.outputs, frozen.outputs, strict=True):
        if not y.shape.is_compatible_with(promised.shape):
            raise ValueError(f"it gives the shape {tuple(y.shape)}, against {promised.shape}, which it promises")
    model = ir.from_proto(proto)
    nodes = {(n.op_type, n.domain) for n in ir.traversal.RecursiveGraphIterator(model.graph)}
    unknown = sorted(name for name, domain in nodes if not onnx.defs.has(name, AUTOMATIC_OPSET, domain))
    if unknown:
        raise ValueError(f"ONNX has no operator for {', '.join(unknown)}")
    if compare and importlib.util.find_spec("onnxruntime") is not None:
        _compare(proto, function, values)
    return model


def _compare(proto: onnx.ModelProto, function: Any, values: list[Value]) -> None:
    """Run both on random arrays.

    Raises:
        Exception: ONNX Runtime does not run it.
        ValueError: it computes something else.
    """
    import onnxruntime

    rng = np.random.default_rng(0)
    arrays = []
    for v in values:
        shape = [_SIZES[axis > 0] if size is None else size for axis, size in enumerate(v.shape)]
        array = rng.normal(size=shape) if v.dtype == "float32" else rng.integers(0, 2, shape)
        arrays.append(array.astype(v.dtype))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would log is raised
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {f"x{i}:0": a for i, a in enumerate(arrays)}
    results = session.run(None, {x.name: feeds[x.name] for x in session.get_inputs()})
    for expected, y in zip(tree.flatten(function(*arrays)), results, strict=True):
        expected = np.asarray(expected)
        largest = np.abs(expected).max(initial=1e-3)
        if y.shape != expected.shape or not np.allclose(y, expected, rtol=0, atol=1e-3 * largest, equal_nan=True):
            raise ValueError("ONNX Runtime computes something else than TensorFlow with what it makes")


def _inline(e: Emission, inner: ir.Graph, inputs: list[ir.Value]) -> list[ir.Value]:
    """Moves the nodes and constants of a graph into the one that is written, named after the layer."""
    builder = e.builder
    outputs = list(inner.outputs)
    # An input that nothing reads is no longer among those of the converted graph.
    by_name = dict(zip((f"x{i}" for i in range(len(inputs))), inputs, strict=True))
    for value in list(inner.inputs):
        ir.convenience.replace_all_uses_with(value, by_name[(value.name or "").split(":")[0]])
    for name, value in list(inner.initializers.items()):
        del inner.initializers[name]
        value.name = builder.unique(f"{e.path}/{_last(name)}")
        builder.graph.register_initializer(value)
    results = [by_name.get((y.name or "").split(":")[0], y) if y.is_graph_input() else y for y in outputs]
    inner.outputs.clear()
    for node in list(inner):
        inner.remove(node)
        node.name = builder.unique(f"{e.path}/{_last(node.name or node.op_type)}")
        for index, value in enumerate(node.outputs):
            value.name = node.name if index == 0 else builder.unique(f"{node.name}_{index}")
            value.shape = None  # its unknown axes have names of their own
            value.type = None
        builder.graph.append(node)
    return results


def _last(name: str) -> str:
    return name.split("/")[-1].split(":")[0]
