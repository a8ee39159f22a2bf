import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter
from tensorflow_quantization.model.sampling import trace_with_sizes
from tensorflow_quantization.model.tracing import UntraceableError


def custom(function, shape=None):
    """A layer that calls a function; Keras cannot infer the shapes of some on TensorFlow."""

    class Custom(layers.Layer):
        def call(self, *tensors):
            return function(*tensors)

        def compute_output_spec(self, *tensors):
            return keras.KerasTensor(shape or tensors[0].shape)

    return Custom(name="custom")


def traced(function, *inputs):
    """The graph of the function, and the tensors that it computes there on random arrays."""
    inputs = inputs or (Input((None, None, 4)),)
    (call,) = LayerGraph.trace(Model(inputs, custom(function)(*inputs))).calls
    return trace_with_sizes(call)


def classes(graph):
    return [call.class_name for call in graph.calls]


def agrees(function, *shapes, inputs=()):
    """Trace, run the graph on arrays of these shapes, and compare with the function; returns the graph."""
    graph, _ = traced(function, *inputs)
    rng = np.random.default_rng(0)
    arrays = [ops.convert_to_tensor(rng.normal(size=shape).astype("float32")) for shape in shapes]
    actual = ops.convert_to_numpy(Interpreter(graph).run(arrays))
    np.testing.assert_allclose(actual, ops.convert_to_numpy(function(*arrays)), rtol=1e-6)
    return graph


def padded(x):
    """Padded to a multiple of 4, as networks with windows do."""
    rows = ops.shape(x)[1] % 4
    return ops.concatenate([x, x[:, :rows]], axis=1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1] * ops.shape(x)[2], 4)),
        lambda x: ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1], -1, 2, 2)),
        lambda x: x[:, : ops.shape(x)[1] // 2],
        lambda x: x[:, ops.shape(x)[1] - 1],
        lambda x: x + ops.zeros((ops.shape(x)[0], 1, ops.shape(x)[2], 4)),
        lambda x: ops.concatenate([x, ops.ones((ops.shape(x)[0], 1, ops.shape(x)[2], 4))], axis=1),
        lambda x: ops.broadcast_to(ops.mean(x, axis=(1, 2), keepdims=True), ops.shape(x)),
        lambda x: ops.tile(ops.mean(x, axis=0, keepdims=True), (ops.shape(x)[0], 1, 1, 1)),
        lambda x: ops.sum(x, axis=1) / ops.shape(x)[1],
        lambda x: x * ops.cast(ops.arange(ops.shape(x)[2]), "float32")[:, None],
        lambda x: ops.take(x, ops.arange(ops.shape(x)[1]), axis=1),
        padded,
    ],
)
@pytest.mark.parametrize("shape", [(1, 6, 9, 4), (3, 11, 5, 4)])
def test_code_that_reads_sizes(function, shape):
    agrees(function, shape)


def test_sizes_of_another_input():
    inputs = Input((None, None, 4)), Input((None, None, 2))
    graph = agrees(lambda x, y: x[:, : ops.shape(y)[2]] * 2.0, (2, 9, 5, 4), (2, 3, 7, 2), inputs=inputs)
    assert "Size" in classes(graph)


def test_one_unknown_size_of_a_reshape_is_inferred_from_the_others():
    graph = agrees(lambda x: ops.reshape(x, (ops.shape(x)[0], 12)), (2, 3, 4), inputs=[Input((3, 4))])
    assert classes(graph) == ["Reshape"]


def test_sizes_that_are_multiples():
    def halves(x):
        y = ops.repeat(ops.repeat(ops.max_pool(x, 2, strides=2), 2, axis=1), 2, axis=2)
        return ops.reshape(ops.concatenate([x, y]), (ops.shape(x)[0], ops.shape(x)[1], -1))

    agrees(halves, (2, 6, 4, 4))


def test_code_that_reads_no_size_is_traced_as_it_is():
    graph, _ = traced(lambda x: ops.relu(x)[:, 1:])
    assert classes(graph) == ["Relu", "GetItem"]
    assert graph.outputs[0].shape == (None, None, None, 4)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: ops.roll(x, ops.shape(x)[1], axis=1), "its Roll needs a size that is known only at run time"),
        (lambda x: x * float(np.sqrt(float(ops.shape(x)[1] or 0))), "is no simple formula of the sizes of a tensor"),
        (lambda x: x + np.eye(ops.shape(x)[2] or 0, dtype="float32")[:, :1], "gets an array that"),
        (lambda x: ops.relu(x) if ops.shape(x)[1] < 100 else ops.tanh(x), "it computes something else for other sizes"),
    ],
)
def test_what_has_no_form_is_an_error_with_the_reason(function, why):
    with pytest.raises(UntraceableError, match=why):
        traced(function)


def test_the_error_of_the_code_itself():
    with pytest.raises(ZeroDivisionError):
        traced(lambda x: x / (1 // 0))


def test_the_model_keeps_no_trace_of_it():
    inputs = Input((None, 4))
    model = Model(inputs, custom(lambda x: ops.reshape(x, (ops.shape(x)[0] * ops.shape(x)[1], 4)), (None, 4))(inputs))
    (call,) = LayerGraph.trace(model).calls
    before = call.inputs[0].shape, keras.utils.get_custom_objects().keys()
    trace_with_sizes(call)
    assert (call.inputs[0].shape, keras.utils.get_custom_objects().keys()) == before
