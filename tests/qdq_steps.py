"""Chains of operators in a `QdqFile`, and what OpenVINO makes of them.

A step takes the file and the tensor so far, and returns the next.
"""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import run
from qdq_files import QdqFile

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.writing import to_model
from tensorflow_quantization.onnx_graph.files import to_ir, with_shapes


def numbers(*shape):
    count = int(np.prod(shape))
    return np.linspace(0.5, 3, count).reshape(shape).astype("float32") if count > 1 else np.full(shape, 1.7, "float32")


def op(op_type, *shapes, **attributes):
    """A step: the operator with a constant of each shape."""
    return lambda f, x: f.op(op_type, x, *(f.constant(numbers(*shape)) for shape in shapes), **attributes)


def reduce(op_type, *axes, keepdims=1):
    return lambda f, x: f.op(op_type, x, f.ints(*axes), keepdims=keepdims)


def shaped(op_type, *sizes):
    return lambda f, x: f.op(op_type, x, f.ints(*sizes))


def pair(f, x, scale=0.02, axis=None):
    """A quantizer; with an axis, it has a scale for each of the 4 channels there."""
    attributes = {} if axis is None else {"axis": axis}
    count = () if axis is None else (4,)
    return f.pair(x, scale * numbers(*count) / numbers().max(), np.zeros(count), np.int8, **attributes)


def off_in_openvino(path, x):
    """How far the last output is from ONNX Runtime, relative to its largest value; infinite: it does not load."""
    openvino = pytest.importorskip("openvino")
    try:
        compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    except RuntimeError:
        return np.inf
    actual, expected = compiled(x)[len(compiled.outputs) - 1], run(path, [x], optimize=False)[-1]
    return np.abs(actual - expected).max() / np.abs(expected).max()


def saved(path, shape, steps):
    """The path of a file with these steps, and its graph."""
    f = QdqFile(opset=18)
    x = f.input(shape)
    for step in steps:
        x = step(f, x)
    path = f.save(path, *f.outputs, f.op("Identity", x))
    return path, to_ir(with_shapes(onnx.load(path)), path).graph


def apply(function, graph, path):
    """Runs a pass on the graph of a file and saves it; the pass's count of changes, and the path."""
    builder = Builder(18)
    builder.graph = graph
    for name in graph.initializers:
        builder.unique(name)  # is in use
    changed = function(builder)
    ir.save(to_model(graph), path)
    return changed, str(path)


def inputs(shape):
    """Random numbers for an input of this shape, three for each unknown size."""
    return np.random.default_rng(0).normal(size=[3 if size == "n" else size for size in shape]).astype("float32")


def assert_found_and_mended(find, mend, shape, steps, folder, *, off, right, x=None):
    """OpenVINO computes a chain wrong, by more than `off`; the finder finds that, and the pass makes it right."""
    x = inputs(shape) if x is None else x
    path, graph = saved(folder / "model.onnx", shape, steps)
    assert off_in_openvino(path, x) > off
    changed, mended = apply(mend, graph, folder / "mended.onnx")
    assert changed == 1 and not list(find(graph))
    assert off_in_openvino(mended, x) < right


def assert_right_and_not_found(find, shape, steps, folder, *, right, x=None):
    """OpenVINO computes a chain right, and the finder finds nothing."""
    x = inputs(shape) if x is None else x
    path, graph = saved(folder / "model.onnx", shape, steps)
    assert not list(find(graph))
    assert off_in_openvino(path, x) < right
