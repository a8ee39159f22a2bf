"""Converts single layers with tf2onnx, and inserts the result into the graph.

This is the last resort: for layers that have no emitter and cannot be traced, and for layers whose emitter rejects
their arguments. It needs tf2onnx, an optional dependency, and the TensorFlow backend.
"""

from __future__ import annotations

import importlib.util
import logging
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
from tensorflow_quantization.export.onnx.values import Value, stored_dtype
from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.interpreter import arguments_at_inference, compute
from tensorflow_quantization.model.precision import computing_in_float32
from tensorflow_quantization.model.tracing import changed_variables, changes
from tensorflow_quantization.text.messages import error_in_one_line
from tensorflow_quantization.text.warn import muted
from tensorflow_quantization.wrappers import activation_quantizers, wrappers_in

#: The optional package.
PACKAGE = "tf2onnx"
#: Sizes of unknown axes when a conversion is tried: of axis 0, and of other axes.
_SIZES = (2, 6)


def can_fall_back() -> bool:
    """Whether tf2onnx is installed and Keras runs on TensorFlow."""
    return keras.backend.backend() == "tensorflow" and importlib.util.find_spec(PACKAGE) is not None


def can_replace_emitter(call: Call) -> bool:
    """Whether tf2onnx may convert a call that its emitter rejects.

    Not if the call quantizes: verification must find its integers in the file. Not if the layer is stateful.
    """
    layer: Any = call.operation
    quantizes = wrappers_in(layer) or activation_quantizers(layer)
    return can_fall_back() and not quantizes and not getattr(layer, "stateful", False)


def convert_call(e: Emission, call: Call, inputs: Sequence[Value], compare: bool = False) -> list[Value]:
    """Convert one call with tf2onnx, append its nodes, and return its outputs.

    Args:
        e: the emission of the call.
        call: a call of a layer or an operation.
        inputs: the values of `call.inputs`.
        compare: whether to compare the result in ONNX Runtime, if it is installed, with TensorFlow.

    Raises:
        NoEmitterError: tf2onnx cannot convert the call, or ONNX Runtime computes other numbers. The message has the
            reason.
        OpsetError: the user set an opset older than `AUTOMATIC_OPSET`.
    """
    values = {id(tensor): value for tensor, value in zip(call.inputs, inputs, strict=True)}
    e.builder.require(AUTOMATIC_OPSET, f"{call.path!r}, which tf2onnx converts,")
    try:
        model = _converted(call, list(values), list(values.values()), compare)
    except Exception as error:
        raise NoEmitterError(f"tf2onnx cannot convert it: {error_in_one_line(error)}") from error
    results = _inline(e, model.graph, [e.arrange(value).onnx for value in values.values()])
    return [Value(y, t.shape, t.dtype) for y, t in zip(results, call.outputs, strict=True)]


def _converted(call: Call, keys: list[int], values: list[Value], compare: bool) -> ir.Model:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2  # has no public name
    from tf2onnx import convert

    operation: Any = call.operation
    changed: list[str] = []

    def run(*arrays: Any) -> list[Any]:
        given = dict(zip(keys, arrays, strict=True))
        args, kwargs = arguments_at_inference(call, lambda t: given[id(t)])
        with keras.StatelessScope() as scope, computing_in_float32([operation]):
            outputs = compute(call, args, kwargs)
        changed.extend(changed_variables(operation, scope))
        return [
            keras.ops.cast(y, stored_dtype(keras.backend.standardize_dtype(y.dtype))) for y in tree.flatten(outputs)
        ]

    signature = [tf.TensorSpec(v.shape, stored_dtype(v.dtype), name=f"x{i}") for i, v in enumerate(values)]
    function = tf.function(run, input_signature=signature).get_concrete_function()
    # Freeze first: tf2onnx would turn arrays and tensors that the function captures into inputs.
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    # It logs a traceback for each operator that it cannot convert, and TensorFlow that tf2onnx calls old functions.
    with muted(PACKAGE, logging.CRITICAL), muted("tensorflow", logging.ERROR):
        proto, _ = convert.from_graph_def(
            frozen.graph.as_graph_def(),
            input_names=[x.name for x in frozen.inputs],
            output_names=[y.name for y in frozen.outputs],
            opset=AUTOMATIC_OPSET,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    if changed:
        raise ValueError(changes(changed))
    for promised, y in zip(call.outputs, frozen.outputs, strict=True):
        if not y.shape.is_compatible_with(promised.shape):
            raise ValueError(f"it returns the shape {tuple(y.shape)}, but Keras infers {promised.shape}")
    model = ir.from_proto(proto)
    nodes = {(n.op_type, n.domain) for n in ir.traversal.RecursiveGraphIterator(model.graph)}
    unknown = sorted(name for name, domain in nodes if not onnx.defs.has(name, AUTOMATIC_OPSET, domain))
    if unknown:
        raise ValueError(f"ONNX has no operator for {', '.join(unknown)}")
    if compare and importlib.util.find_spec("onnxruntime") is not None:
        _compare(proto, function, values)
    return model


def _erfc(graph: Any, node: Any, name: str, args: list[Any]) -> None:
    """Makes a node the difference 1 - erf(x): ONNX has no erfc, by which TensorFlow computes an exact GELU."""
    one = graph.make_const(f"{name}_one", np.ones((), np.float32))
    erf = graph.make_node("Erf", node.input)
    node.type = "Sub"
    graph.replace_inputs(node, [one.output[0], erf.output[0]])


def _compare(proto: onnx.ModelProto, function: Any, values: list[Value]) -> None:
    """Compare ONNX Runtime with TensorFlow on random arrays.

    Raises:
        Exception: ONNX Runtime cannot run the model.
        ValueError: the results differ.
    """
    import onnxruntime

    rng = np.random.default_rng(0)
    arrays = []
    for v in values:
        shape = [_SIZES[axis > 0] if size is None else size for axis, size in enumerate(v.shape)]
        dtype = stored_dtype(v.dtype)
        array = rng.normal(size=shape) if dtype == "float32" else rng.integers(0, 2, shape)
        arrays.append(array.astype(dtype))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised too
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {f"x{i}:0": a for i, a in enumerate(arrays)}
    results = session.run(None, {x.name: feeds[x.name] for x in session.get_inputs()})
    for expected, y in zip(tree.flatten(function(*arrays)), results, strict=True):
        expected = np.asarray(expected)
        largest = np.abs(expected).max(initial=1e-3)
        if y.shape != expected.shape or not np.allclose(y, expected, rtol=0, atol=1e-3 * largest, equal_nan=True):
            raise ValueError("ONNX Runtime computes other numbers than TensorFlow with the result")


def _inline(e: Emission, inner: ir.Graph, inputs: list[ir.Value]) -> list[ir.Value]:
    """Move the nodes and constants of `inner` into the graph, under the name of the layer; return its outputs."""
    builder = e.builder
    outputs = list(inner.outputs)
    inner.outputs.clear()  # an output may be a constant, and belongs to one graph
    # tf2onnx removes inputs that nothing reads, so look inputs up by name.
    by_name = dict(zip((f"x{i}" for i in range(len(inputs))), inputs, strict=True))
    for value in list(inner.inputs):
        ir.convenience.replace_all_uses_with(value, by_name[(value.name or "").split(":")[0]])
    for name, value in list(inner.initializers.items()):
        del inner.initializers[name]
        value.name = builder.unique(f"{e.path}/{_last(name)}")
        builder.graph.register_initializer(value)
    results = [by_name.get((y.name or "").split(":")[0], y) if y.is_graph_input() else y for y in outputs]
    for node in list(inner):
        inner.remove(node)
        node.name = builder.unique(f"{e.path}/{_last(node.name or node.op_type)}")
        for index, value in enumerate(node.outputs):
            value.name = node.name if index == 0 else builder.unique(f"{node.name}_{index}")
            value.shape = None  # its unknown axes have other names than in the graph
            value.type = None
        builder.graph.append(node)
    return results


def _last(name: str) -> str:
    return name.split("/")[-1].split(":")[0]
