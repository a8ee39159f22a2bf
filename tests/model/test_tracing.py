import keras
import pytest
from keras import layers, ops

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import nodes_of
from tensorflow_quantization.model.tracing import UntraceableError, reason_of, trace_call


class Gate(layers.Layer):
    """Two layers, of which one cares about training, and an operation."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.dropout = layers.Dense(4, name="dense"), layers.Dropout(0.5, name="dropout")

    def build(self, inputs_shape, other_shape):
        self.dense.build(inputs_shape)

    def call(self, inputs, other):
        return self.dropout(self.dense(inputs)) * other


class Counting(layers.Layer):
    def build(self, input_shape):
        self.calls = self.add_weight(name="calls", shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return ops.tanh(inputs)


def call_of(layer, *inputs):
    (call,) = LayerGraph.trace(keras.Model(list(dict.fromkeys(inputs)), layer(*inputs))).calls
    return call


@pytest.mark.parametrize("training", [False, True])
def test_sublayers_are_called_as_in_training_or_not(training):
    call = call_of(Gate(name="gate"), keras.Input((4,)), keras.Input((4,)))
    graph, positions = trace_call(call, training)
    assert [inner.path for inner in graph.calls] == ["gate/dense", "gate/dropout", "gate/multiply"]
    assert graph.find("dropout")[0].kwargs.get("training") is training
    assert positions == [0, 1]


def test_a_tensor_that_is_given_twice_is_one_input():
    x = keras.Input((4,))
    graph, positions = trace_call(call_of(Gate(), x, x))
    assert len(graph.inputs) == 1 and positions == [0]


def test_the_sizes_of_the_inputs_can_be_given():
    graph, _ = trace_call(call_of(Gate(), keras.Input((4,)), keras.Input((4,))), shapes=[(3, 4), (3, 4)])
    assert graph.outputs[0].shape == (3, 4)


def test_tracing_leaves_no_mark_on_the_layer():
    layer = Gate()
    call = call_of(layer, keras.Input((4,)), keras.Input((4,)))
    nodes = len(nodes_of(layer.dense))
    trace_call(call)
    assert len(nodes_of(layer.dense)) == nodes


def test_a_layer_that_changes_a_variable_is_not_what_it_calls():
    layer = Counting()
    call = call_of(layer, keras.Input((4,)))
    with pytest.raises(UntraceableError) as error:
        trace_call(call)
    assert reason_of(error.value) == f"it changes {layer.calls.path} while it runs, at inference too"
    assert float(ops.convert_to_numpy(layer.calls)) == 0
