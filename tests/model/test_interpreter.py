import doctest
import weakref

import keras
import numpy as np
import pytest
import small_models
from hypothesis import given, settings
from keras import layers, ops
from random_graphs import GRAPHS, build

from tensorflow_quantization.model import interpreter
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import model_inputs
from tensorflow_quantization.model.interpreter import Interpreter, arguments_as_written, compute


class Value:
    """What is neither array nor tensor, and can be watched as it dies."""


def tensors(structure):
    return keras.tree.map_structure(ops.convert_to_tensor, structure)


def assert_close(actual, expected):
    """Two structures of tensors are the same, and equal to float rounding."""
    keras.tree.assert_same_structure(actual, expected)
    for a, b in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-5, atol=1e-5)


def chain(depth=6):
    """A chain of Dense layers whose first output is read again by the last layer."""
    inputs = keras.Input((4,), name="data")
    first = x = layers.Dense(4, name="dense_0")(inputs)
    for index in range(1, depth):
        x = layers.Dense(4, name=f"dense_{index}")(x)
    return small_models.randomize(keras.Model(inputs, layers.Add(name="add")([x, first])))


def test_example():
    assert not doctest.testmod(interpreter).failed


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_outputs_are_those_of_the_model(name, nested):
    model = small_models.BUILDERS[name]()
    graph = LayerGraph.trace(model)
    x = tensors(small_models.data_for(model))
    assert_close(Interpreter(graph if nested else graph.flatten()).run(x), model(x))


@settings(max_examples=10)
@given(steps=GRAPHS["steps"], head=GRAPHS["head"])
def test_outputs_of_random_graphs_are_those_of_the_model(steps, head):
    keras.utils.clear_session(free_memory=False)
    model = build("channels_last", steps, head)  # which every backend computes on every processor
    x = tensors(np.random.default_rng(0).normal(size=(2, *model.inputs[0].shape[1:])).astype("float32"))
    assert_close(Interpreter(LayerGraph.trace(model)).run(x), model(x))


def test_model_stays_as_it_is():
    model = small_models.nested()
    before = small_models.values(model)
    Interpreter(LayerGraph.trace(model).flatten()).run(tensors(small_models.data_for(model)))
    small_models.assert_same_arrays(small_models.values(model), before)


def test_any_function_stands_in_for_a_call(residual):
    x = tensors(small_models.data_for(residual))

    def without_shortcut(call, args, kwargs):
        return args[0][1] if call.name == "add" else compute(call, args, kwargs)

    expected = x
    for name in ("stem", "conv", "bn", "relu", "gap", "dense"):
        expected = residual.get_layer(name)(expected)
    assert_close(Interpreter(LayerGraph.trace(residual)).run(x, without_shortcut), expected)


def test_values_of_any_kind_flow(residual):
    def described(call, args, kwargs):
        return f"{call.name}({', '.join(keras.tree.flatten(args))})"

    found = Interpreter(LayerGraph.trace(residual)).run("x", described)
    assert found == "dense(gap(relu(add(stem(x), bn(conv(stem(x)))))))"


def test_symbolic_tensors_flow(cnn):
    found = Interpreter(LayerGraph.trace(cnn)).run(keras.KerasTensor((2, 8, 8, 3)))
    assert isinstance(found, keras.KerasTensor)
    assert found.shape == (2, 5)


def test_a_call_of_several_outputs():
    inputs = keras.Input((6,))
    left, right = ops.split(inputs, 2, axis=1)
    graph = LayerGraph.trace(keras.Model(inputs, {"right": right, "left": left}))
    found = Interpreter(graph).run("x", lambda call, args, kwargs: ("first", ["second"]))
    assert found == {"left": "first", "right": "second"}


def test_watch_sees_inputs_and_outputs_of_each_call(residual):
    seen = []
    graph = LayerGraph.trace(residual)
    x = tensors(small_models.data_for(residual))
    Interpreter(graph).run(x, watch=seen.append)
    assert [computed.call for computed in seen] == graph.calls
    by_name = {computed.call.name: computed for computed in seen}
    assert by_name["stem"].inputs[0] is x
    assert by_name["add"].inputs[0] is by_name["stem"].outputs[0]
    assert by_name["add"].inputs[1] is by_name["bn"].outputs[0]
    assert_close(by_name["gap"].outputs[0], residual.get_layer("gap")(by_name["relu"].outputs[0]))


def test_a_shared_layer_is_computed_once_for_each_call():
    model = small_models.shared_layer()
    seen = []
    Interpreter(LayerGraph.trace(model)).run(tensors(small_models.data_for(model)), watch=seen.append)
    assert [computed.call.name for computed in seen] == ["shared"] * 3
    assert seen[1].inputs[0] is seen[0].outputs[0]
    assert seen[2].inputs[0] is seen[1].outputs[0]


class Doubling(layers.Layer):
    """Doubles its input, in training only; it trains if nobody says otherwise."""

    def call(self, x, training=True):
        return x * 2.0 if training else x


@pytest.mark.parametrize("given", [{}, {"training": True}, {"training": None}], ids=str)
def test_layers_run_at_inference_whatever_their_calls_say(given):
    inputs = keras.Input((4,))
    graph = LayerGraph.trace(keras.Model(inputs, Doubling()(layers.Dropout(0.5)(inputs, **given), **given)))
    x = tensors(np.ones((2, 4), "float32"))
    assert_close(Interpreter(graph).run(x), x)


def test_functions_never_get_training():
    inputs = keras.Input((4,))
    graph = LayerGraph.trace(keras.Model(inputs, layers.Dropout(0.5)(inputs, training=True)))
    found = []

    def noted(call, args, kwargs):
        found.append((args, kwargs))
        return "y"

    assert Interpreter(graph).run("x", noted) == "y"
    assert found == [(("x",), {})]


def test_arguments_as_written_have_training_and_none():
    inputs = keras.Input((4,))
    graph = LayerGraph.trace(keras.Model(inputs, Scaling()(layers.Dropout(0.5)(inputs, training=True), offset=None)))
    found = []

    def noted(call, args, kwargs):
        found.append((args, kwargs))
        return call.class_name

    Interpreter(graph, arguments_as_written).run("x", noted)
    assert found == [(("x",), {"training": True}), (("Dropout",), {"offset": None})]


class Scaling(layers.Layer):
    """A factor that is two unless it is given, where `None` is one."""

    def call(self, x, factor=2.0, offset=None):
        x = x if factor is None else x * factor
        return x if offset is None else x + offset


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [({"offset": None}, {}), ({"factor": None}, {"factor": None}), ({"offset": 1.0}, {"offset": 1.0})],
    ids=str,
)
def test_none_is_handed_on_where_it_says_something(given, handed_on):
    inputs = keras.Input((4,))
    layer = Scaling()
    model = keras.Model(inputs, layer(inputs, **given))
    x = tensors(np.ones((2, 4), "float32"))
    found = []

    def noted(call, args, kwargs):
        found.append(kwargs)
        return compute(call, args, kwargs)

    assert_close(Interpreter(LayerGraph.trace(model)).run(x, noted), model(x))
    assert found == [handed_on]


def test_a_tensor_is_dead_after_its_last_reader():
    graph = LayerGraph.trace(chain(depth=6))
    made = {}
    alive = {}

    def value(call, args, kwargs):
        alive[call.name] = {name for name, reference in made.items() if reference() is not None}
        y = Value()
        made[call.name] = weakref.ref(y)
        return y

    Interpreter(graph).run(Value(), value)
    for index in range(1, 6):
        assert alive[f"dense_{index}"] == {"dense_0", f"dense_{index - 1}"}
    assert alive["add"] == {"dense_0", "dense_5"}
    assert not [name for name, reference in made.items() if reference() is not None]


def test_an_input_and_what_nobody_reads_are_dropped():
    inputs = keras.Input((4,))
    dense = layers.Dense(4, name="dense")(inputs)
    left, _ = ops.split(dense, 2, axis=1)
    graph = LayerGraph.trace(keras.Model(inputs, layers.Dense(2, name="head")(left)))
    values = [Value(), Value(), Value(), Value(), Value()]
    made = [weakref.ref(v) for v in values]

    def value(call, args, kwargs):
        found = [values.pop(0) for _ in call.outputs]
        if call.name == "head":
            assert [reference() is not None for reference in made[:4]] == [False, False, True, False]
        return found

    Interpreter(graph).run([values.pop(0)], value)


def test_memory_does_not_grow_with_batches():
    graph = LayerGraph.trace(chain(depth=2))
    made = []

    def value(call, args, kwargs):
        assert not [reference for reference in made[:-2] if reference() is not None]
        y = Value()
        made.append(weakref.ref(y))
        return y

    seen = []
    batches = (np.full((2, 4), index) for index in range(3))
    Interpreter(graph).run_batches(batches, value, lambda computed: seen.append(computed.call.name))
    assert seen == ["dense_0", "dense_1", "add"] * 3


def test_batches_come_as_predict_takes_them():
    model = small_models.siamese()
    graph = LayerGraph.trace(model).flatten()
    x = small_models.data_for(model)
    found = []

    def watch(computed):
        if computed.call.name == "dense":
            found.extend(computed.outputs)

    batches = [x, dict(zip(["right", "left"], x[::-1], strict=True))]
    Interpreter(graph).run_batches(batches, watch=watch)
    for y in found:
        assert_close(y, model(model_inputs(graph, x)))


def test_wrong_number_of_inputs():
    graph = LayerGraph.trace(small_models.siamese())
    with pytest.raises(ValueError, match=r"'siamese' has 2 inputs \(left, right\), got 1 values. Pass one value"):
        Interpreter(graph).run(["x"], lambda call, args, kwargs: "y")


def test_wrong_number_of_outputs_names_the_call(cnn):
    with pytest.raises(ValueError, match=r"in place of 'conv' \(Conv2D\) returned 2 values; it must return 1"):
        Interpreter(LayerGraph.trace(cnn)).run("x", lambda call, args, kwargs: ["y", "z"])


def test_a_fork_goes_on_by_itself():
    model = chain()
    interpreter = Interpreter(LayerGraph.trace(model).flatten())
    x = ops.convert_to_tensor(np.ones((1, *model.inputs[0].shape[1:]), "float32"))
    run = interpreter.start([x])
    run.step()
    fork = run.fork(lambda call, args, kwargs: 2 * compute(call, args, kwargs))
    while not fork.finished:
        fork.step()
    while not run.finished:
        run.step()
    assert_close(run.outputs(), model(x))
    assert not np.allclose(ops.convert_to_numpy(fork.outputs()), ops.convert_to_numpy(run.outputs()))
