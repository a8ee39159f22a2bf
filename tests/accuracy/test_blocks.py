import keras
import pytest
from accuracy_networks import branches, depthwise, quantized
from keras import layers

from tensorflow_quantization.accuracy.blocks import blocks_of
from tensorflow_quantization.accuracy.kernels import kernels_of
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.wrappers import float_name


def kernels(call):
    return len(list(kernels_of(call.operation))) if call.is_layer else 0


def cut(model, known=lambda tensor: True):
    graph = LayerGraph.trace(quantized(model, target="openvino")).flatten()
    return graph, blocks_of(graph, kernels, known)


@pytest.mark.parametrize("build", [depthwise, branches])
def test_each_call_is_in_one_block_and_reads_what_is_there(build):
    graph, blocks = cut(build())
    assert [call for block in blocks for call in block.calls] == graph.calls
    there = {id(tensor) for tensor in graph.inputs}
    for block in blocks:
        assert {id(tensor) for tensor in block.inputs} <= there
        made = {id(tensor) for call in block.calls for tensor in call.outputs}
        assert {id(tensor) for tensor in block.outputs} <= made
        there |= {id(tensor) for tensor in block.outputs}
    assert {id(tensor) for tensor in graph.outputs} <= there
    assert all(sum(map(kernels, block.calls)) <= 5 for block in blocks)


def residuals():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 1, name="stem")(inputs)
    for index in range(4):
        y = layers.Conv2D(16, 1, activation="relu", name=f"expand_{index}")(x)
        y = layers.Conv2D(16, 3, padding="same", activation="relu", name=f"spread_{index}")(y)
        x = layers.Add(name=f"sum_{index}")([x, layers.Conv2D(4, 1, name=f"project_{index}")(y)])
    return keras.Model(inputs, x)


def test_residual_blocks_stay_whole():
    _, blocks = cut(residuals())
    assert [float_name(block.calls[-1].name) for block in blocks] == [f"sum_{index}" for index in range(4)]
    assert all(len(block.inputs) == len(block.outputs) == 1 for block in blocks)


def test_only_known_tensors_pass():
    _, blocks = cut(residuals(), lambda tensor: tensor.producer is None or float_name(tensor.producer.name) == "sum_1")
    assert [float_name(block.calls[-1].name) for block in blocks] == ["sum_1", "sum_3"]


def test_a_call_with_many_kernels_is_alone():
    inputs = keras.Input((16, 16, 3))
    x = layers.Dense(8, name="before")(layers.Reshape((-1, 3))(inputs))
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    _, blocks = cut(keras.Model(inputs, layers.Dense(8, name="after")(layers.Dense(8, name="next")(x))))
    assert [sum(map(kernels, block.calls)) for block in blocks] == [5, 2]
