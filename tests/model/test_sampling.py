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


def difference(x, axis=1):
    """Of the positions of two steps."""
    positions = ops.arange(ops.shape(x)[axis])
    return positions[:, None] - positions


def masked(x, mask):
    return ops.where(mask, x[:, :, :1, 0], -30.0)


def rotary(x):
    """The table of angles of a rotary embedding."""
    angles = ops.einsum(
        "i,j->ij", ops.arange(ops.shape(x)[1], dtype="float32"), 1.0 / ops.arange(1, 5, dtype="float32")
    )
    table = ops.reshape(ops.stack([angles, angles], axis=-2), (*ops.shape(angles)[:-1], 8))
    return x * ops.cos(table)[None, :, None, :4]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: masked(x, difference(x) >= 0),
        lambda x: masked(x, ops.logical_and(difference(x) >= 0, difference(x) < 3)),
        lambda x: masked(x, ops.cast(ops.tril(ops.ones((ops.shape(x)[1],) * 2)), "bool")),
        lambda x: masked(
            x, ops.broadcast_to(ops.expand_dims(difference(x) >= 0, 0), (ops.shape(x)[0], *[ops.shape(x)[1]] * 2))
        ),
        lambda x: x[:, :, 0] + ops.eye(ops.shape(x)[1])[:, :1],
        lambda x: x[..., 0] * ops.arange(1 - ops.shape(x)[2], 1, dtype="float32"),
        lambda x: ops.take(x, ops.arange(0, ops.shape(x)[1], 2), axis=1),
        rotary,
    ],
)
@pytest.mark.parametrize("shape", [(1, 6, 9, 4), (3, 800, 1, 4)])
def test_arrays_that_are_computed_from_sizes(function, shape):
    agrees(function, shape)


def test_an_array_whose_values_the_code_reads():
    agrees(lambda x: x[:, :, : len(np.asarray(ops.convert_to_numpy(ops.arange(ops.shape(x)[1] or 0))))], (2, 3, 7, 4))


def test_a_mask_between_the_steps_of_a_sequence():
    """The unknown axes of the mask have the size of one axis of the other input."""
    inputs = Input((None, 4)), Input((None, None))
    agrees(
        lambda x, mask: ops.reshape(ops.matmul(mask, x) + x, (ops.shape(x)[0], ops.shape(mask)[1] * 4)),
        *((2, 5, 4), (2, 5, 5)),
        inputs=inputs,
    )


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


def test_the_error_is_of_inputs_of_equal_sizes():
    def function(x, y):
        return ops.concatenate([x, y])[: len(set(ops.shape(x)[0]))]

    with pytest.raises(TypeError, match="not iterable"):
        traced(function, Input((None, 4)), Input((None, 4)))


def test_an_error_that_is_not_about_sizes_stops_the_search():
    runs = []

    def function(x):
        runs.append(ops.shape(x))
        return x.no_such_attribute

    with pytest.raises(AttributeError):
        traced(function)
    assert len(runs) == 3  # one without sizes, and the same error for two samples


def test_the_model_keeps_no_trace_of_it():
    inputs = Input((None, 4))
    model = Model(inputs, custom(lambda x: ops.reshape(x, (ops.shape(x)[0] * ops.shape(x)[1], 4)), (None, 4))(inputs))
    (call,) = LayerGraph.trace(model).calls
    before = call.inputs[0].shape, keras.utils.get_custom_objects().keys()
    trace_with_sizes(call)
    assert (call.inputs[0].shape, keras.utils.get_custom_objects().keys()) == before
