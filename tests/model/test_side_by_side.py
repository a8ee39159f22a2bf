import doctest
import weakref

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.model import side_by_side
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.interpreter import compute
from tensorflow_quantization.model.side_by_side import SideBySide, pair_calls


def graph_of(model):
    return LayerGraph.trace(model).flatten()


def paths(pairs):
    return [(first.path, second.path) for first, second in pairs]


def dense_model(*names):
    """Dense layers of these names, one after the other."""
    x = inputs = keras.Input((4,))
    for name in names:
        x = layers.Dense(4, name=name)(x)
    return small_models.randomize(keras.Model(inputs, x))


def test_example():
    assert not doctest.testmod(side_by_side).failed


@pytest.mark.parametrize("target", [None, "onnxruntime"])
@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_every_call_of_a_float_model_has_its_partner(name, target):
    model = small_models.BUILDERS[name]()
    graphs = graph_of(model), graph_of(quantize_model(model, target=target))
    pairs = pair_calls(*graphs, prefix="quant_")
    assert {id(call) for call, _ in pairs} == {id(call) for call in graphs[0].calls}
    assert len({id(call) for _, call in pairs}) == len(pairs)
    for first, second in pairs:
        head, _, last = second.path.rpartition("/")
        assert first.path in (second.path, f"{head}/{last.removeprefix('quant_')}".lstrip("/"))


def test_a_layer_called_several_times_is_paired_call_by_call():
    reference, other = graph_of(small_models.shared_layer()), graph_of(quantize_model(small_models.shared_layer()))
    pairs = pair_calls(reference, other, prefix="quant_")
    assert [reference.calls.index(first) for first, _ in pairs] == [0, 1, 2]
    assert [other.calls.index(second) for _, second in pairs] == [0, 1, 2]


def test_a_layer_called_more_often_has_no_partner():
    dense = layers.Dense(4, name="dense")
    inputs = keras.Input((4,))
    pairs = pair_calls(graph_of(dense_model("dense")), graph_of(keras.Model(inputs, dense(dense(inputs)))))
    assert pairs == []


@pytest.mark.parametrize(
    ("names", "copies"),
    [
        (["x", "quant_x"], ["x", "quant_x"]),
        (["x", "quant_x"], ["quant_x", "quant_quant_x"]),
        (["x", "quant_x"], ["x", "quant_quant_x"]),
        (["quant_x"], ["quant_x"]),
    ],
    ids=str,
)
def test_names_that_have_the_prefix_themselves(names, copies):
    pairs = pair_calls(graph_of(dense_model(*names)), graph_of(dense_model(*copies)), prefix="quant_")
    assert paths(pairs) == list(zip(names, copies, strict=True))


def test_what_only_one_graph_has_is_left_out():
    reference, other = graph_of(dense_model("a", "b", "c")), graph_of(dense_model("a", "quantizer", "quant_c"))
    assert paths(pair_calls(reference, other, prefix="quant_")) == [("a", "a"), ("c", "quant_c")]


@pytest.mark.parametrize("name", ["residual", "nested", "siamese", "dict"])
def test_both_models_are_computed_and_compared(name, target="onnxruntime"):
    model = small_models.BUILDERS[name]()
    x = small_models.data_for(model)
    quantized = calibrate(quantize_model(model, target=target), x, verbose=0)
    graphs = graph_of(model), graph_of(quantized)
    pairs, seen = pair_calls(*graphs, prefix="quant_"), []

    def compare(exact, rounded):
        seen.append((exact.call, rounded.call))
        for a, b in zip(exact.outputs, rounded.outputs, strict=True):
            a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
            assert np.abs(a - b).max() < 0.25 * np.abs(a).max()

    inputs = keras.tree.map_structure(ops.convert_to_tensor, x)
    outputs = SideBySide(*graphs, pairs).run(inputs, compare)
    assert seen == pairs
    small_models.assert_same_arrays(outputs[0], model(x))
    small_models.assert_same_arrays(outputs[1], quantized(x))


def test_a_function_stands_in_for_calls_of_the_other_graph_only():
    graphs = [graph_of(dense_model("a", "b")) for _ in range(2)]
    errors = {}

    def doubled(call, args, kwargs):
        y = compute(call, args, kwargs)
        return 2.0 * y if call.name == "b" else y

    def compare(first, second):
        errors[first.call.name] = float(ops.max(ops.abs(first.outputs[0] - second.outputs[0])))
        assert errors["a"] == 0

    SideBySide(*graphs).run_batches([np.ones((2, 4))], compare, doubled)
    assert errors["b"] > 0


def test_the_reference_waits_for_calls_in_another_order():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")

    def model(order):
        branches = {"a": left, "b": right}
        found = {name: layers.Dense(4, name=name)(branches[name]) for name in order}
        return keras.Model([left, right], [found[name] for name in order])

    seen = []
    side_by_side = SideBySide(graph_of(model("ab")), graph_of(model("ba")))
    side_by_side.run_batches([[np.ones((2, 4))] * 2] * 2, lambda first, second: seen.append(first.call.name))
    assert sorted(seen) == ["a", "a", "b", "b"]


def test_pairs_that_do_not_fit_the_graphs():
    graphs = graph_of(dense_model("a", "b")), graph_of(dense_model("a", "b"))
    (first, _), (_, second) = pairs = pair_calls(*graphs)
    with pytest.raises(ValueError, match=r"'a' \(Dense\) is in two pairs"):
        SideBySide(*graphs, [*pairs, (first, second)])
    with pytest.raises(ValueError, match=r"'a' \(Dense\) .* is no call of the graph of 'functional"):
        SideBySide(*reversed(graphs), pairs)


class Value:
    """What can be watched as it dies."""


def test_memory_grows_neither_with_depth_nor_with_batches():
    names = [f"dense_{index}" for index in range(6)]
    made = []

    def value(call, args, kwargs):
        alive = [reference for reference in made if reference() is not None]
        assert len(alive) <= 1
        y = Value()
        made.append(weakref.ref(y))
        return y

    graphs = graph_of(dense_model(*names)), graph_of(dense_model(*names))
    done = []
    side_by_side = SideBySide(*graphs)
    side_by_side.run_batches([np.ones((2, 4))] * 2, lambda *pair: done.append(pair[1].call.name), value)
    assert done == names * 2
