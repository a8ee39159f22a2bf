import math

import keras
import numpy as np
import pytest
import small_models
from accuracy_networks import branches, depthwise, images, quantized

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.accuracy import correct_biases
from tensorflow_quantization.accuracy import layer_by_layer as layers_module
from tensorflow_quantization.accuracy.layer_by_layer import Partners, Reference, layer_by_layer
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.weights import float32_array


class Watch:
    """A method that changes nothing but remembers, and may be interrupted."""

    def __init__(self, interrupted_at=None):
        self.seen, self.interrupted_at = [], interrupted_at

    def improve(self, step):
        self.seen.append((step.call.name, step.reference and step.reference.name, len(step.arguments)))
        if step.call.name == self.interrupted_at:
            step.call.operation.layer.kernel.assign(np.zeros(step.call.operation.layer.kernel.shape))
            raise KeyboardInterrupt


def test_each_quantized_layer_is_seen_once_beside_its_float_layer():
    model, watch = depthwise(), Watch()
    layer_by_layer(quantized(model), images(40), [watch], model)
    assert [name for name, _, _ in watch.seen][:3] == ["quant_stem", "quant_depthwise_0", "quant_pointwise_0"]
    assert all(name == f"quant_{reference}" and batches == 1 for name, reference, batches in watch.seen)


def test_batches_are_joined_as_far_as_memory_allows(monkeypatch):
    model, watch = depthwise(), Watch()
    graph = LayerGraph.trace(quantized(model)).flatten()
    largest = max(math.prod(t.shape[1:]) for call in graph.calls for t in call.outputs)
    monkeypatch.setattr(layers_module, "_LARGEST", 4 * 20 * largest)
    batches = [images(40)[i : i + 8] for i in range(0, 40, 8)]
    layer_by_layer(quantized(model), batches, [watch], model)
    assert {count for _, _, count in watch.seen} == {3}  # 16, 16 and 8


def test_a_layer_that_is_called_twice_is_left_out():
    model, watch = small_models.shared_layer(), Watch()
    data = small_models.data_for(model)
    layer_by_layer(calibrate(quantize_model(model), data, verbose=0), data, [watch], model)
    assert "quant_shared" not in [name for name, _, _ in watch.seen]


def test_layers_are_shown_what_improved_layers_return():
    class Zero:
        def __init__(self):
            self.largest = {}

        def improve(self, step):
            self.largest[step.call.name] = max(
                float(np.abs(float32_array(args[0])).max()) for args, _ in step.arguments
            )
            if step.call.name == "quant_stem":
                step.call.operation.layer.kernel.assign(np.zeros(step.call.operation.layer.kernel.shape))
                step.call.operation.layer.bias.assign(np.zeros(16))

    zero = Zero()
    layer_by_layer(quantized(depthwise()), images(4), [zero])
    assert zero.largest["quant_stem"] > 0 and zero.largest["quant_depthwise_0"] == 0


def test_the_float_model_may_compute_its_branches_in_another_order():
    inputs = keras.Input((3,))
    branches = [keras.layers.Dense(2, name=f"branch_{i}")(inputs * float(i)) for i in range(3)]
    model = keras.Model(inputs, keras.layers.Add()(branches))
    float_graph, graph = (LayerGraph.trace(m).flatten() for m in (model, quantize_model(model)))
    partners, x = Partners.between(float_graph, graph), np.ones((4, 3), "float32")
    reference = Reference(float_graph, [[x]], graph, partners)
    calls = {call.name: partners.of(call) for call in graph.calls}
    for i in (2, 0, 1):
        [(args, _)] = reference.arguments(calls[f"quant_branch_{i}"])
        assert np.array_equal(float32_array(args[0]), i * x)


def test_an_interruption_leaves_the_model_as_it_was():
    model = quantized(depthwise())
    before = [float32_array(w) for w in model.weights]
    with pytest.raises(KeyboardInterrupt):
        layer_by_layer(model, images(4), [Watch("quant_pointwise_0")])
    assert all(np.array_equal(a, float32_array(w)) for a, w in zip(before, model.weights, strict=True))


def test_models_that_do_not_belong_together_are_an_error():
    with pytest.raises(ValueError, match="was not made from"):
        correct_biases(branches(), quantized(depthwise()), images(4))
