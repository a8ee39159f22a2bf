"""Helpers for tests of ONNX files: run them, count their nodes, compare them with Keras."""

import collections

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import small_models

from tensorflow_quantization.export import export_onnx


def skip_on_torch(what):
    """Where Keras on PyTorch computes something else than on its other backends; a file is the same for all."""
    if keras.backend.backend() == "torch":
        pytest.skip(f"Keras on PyTorch: {what}")


def skip_unless_computable(model, arrays=None):
    """Keras itself does not compute each operation of a functional model on each backend; TensorFlow is held to all."""
    try:
        model(keras.tree.pack_sequence_as(model.input, data(model) if arrays is None else arrays))
    except Exception as error:
        if keras.backend.backend() == "tensorflow":
            raise
        pytest.skip(f"Keras on {keras.backend.backend()}: {error}")


def run(path, inputs, optimize=True, exact=False):
    """The outputs of a file for a list of arrays; `exact`: integers do not saturate on a processor without VNNI."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # warnings and errors
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)}
    return session.run(None, feeds)


def export(model, path, **kwargs):
    """Export, check, and load: the `onnx.ModelProto`."""
    export_onnx(model, path, **kwargs)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def op_counts(proto):
    """How often each operator occurs."""
    return collections.Counter(node.op_type for node in proto.graph.node)


def data(model, count=2, seed=1):
    """A random array for each input; unknown axes are 7 long."""
    rng = np.random.default_rng(seed)
    arrays = []
    for x in model.inputs:
        shape = (count, *(7 if d is None else d for d in x.shape[1:]))
        if "int" in x.dtype:
            arrays.append(rng.integers(0, 5, shape).astype(x.dtype))
        else:
            arrays.append(rng.normal(size=shape).astype("float32"))
    return arrays


def assert_agrees(model, path, arrays=None, tolerance=1e-4, **kwargs):
    """Export, run, and compare each output with Keras, relative to its largest value; the `onnx.ModelProto`."""
    arrays = data(model) if arrays is None else arrays
    proto = export(model, path, **kwargs)
    feeds = [a.astype("float32") if a.dtype.kind == "f" else a for a in arrays]
    actual = run(path, feeds)
    structure = keras.tree.pack_sequence_as(model.input, arrays)
    expected = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(structure, training=False))]
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        largest = np.abs(b).max(initial=0)
        assert np.abs(a.astype("float64") - b).max(initial=0) <= tolerance * max(largest, 1e-3), (a, b)
    return proto


def layer_model(layer, *shapes, dtype="float32"):
    """A model of one layer with random weights; it takes a list if there are several shapes."""
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    outputs = layer(inputs[0] if len(inputs) == 1 else inputs)
    return small_models.randomize(keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs))
