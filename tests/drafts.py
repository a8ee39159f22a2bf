"""A `Draft` of the smallest graph, for the tests of steps."""

import keras

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.targets.draft import Draft
from tensorflow_quantization.targets.kernel_rules import KernelRules

IMAGE, SEQUENCE = (8, 8, 3), (6, 8)


def rules(weighted=("Conv2D", "Dense"), unweighted=("Add",), **others):
    return KernelRules(weighted=frozenset(weighted), unweighted=frozenset(unweighted), **others)


def draft_of(make, of_rules, shape=IMAGE, switched_off=()):
    inputs = keras.Input(shape, name="image")
    graph = LayerGraph.trace(keras.Model(inputs, make(inputs)))
    return Draft(graph, of_rules, lambda call: call.name in switched_off)


def call_of(draft, name):
    (call,) = draft.graph.find(name)
    return call


def quantized(draft):
    """The paths of what has a quantizer on its output."""
    return [path for path, placement in draft.placements.items() if placement.output]
