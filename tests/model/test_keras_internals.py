import ast
import functools
import inspect
import itertools
import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import tensorflow_quantization
from tensorflow_quantization.model import keras_internals as internals

PACKAGE = pathlib.Path(tensorflow_quantization.__file__).parent
ROOM = PACKAGE / "model/keras_internals.py"


class Block(layers.Layer):
    """A layer with a weight of its own and two layers, of which one holds another."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")
        self.repeated = layers.TimeDistributed(layers.Dense(4, name="inner"), name="repeated")

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=())
        self.offset = self.add_weight(name="offset", shape=(), trainable=False)
        self.dense.build(input_shape)
        self.repeated.build(input_shape)

    def call(self, inputs):
        return self.repeated(self.dense(inputs)) * self.gain + self.offset


def chain():
    """Input > a > b, and b once more."""
    x = keras.Input((4,), name="x")
    a, b = layers.Dense(4, name="a"), layers.Dense(4, name="b")
    return keras.Model(x, b(b(a(x))))


# The graph of a model.


def test_a_model_of_inputs_and_outputs_is_functional():
    class Doubling(keras.Model):
        def call(self, inputs):
            return 2.0 * inputs

    class Halved(type(chain())):
        def call(self, inputs, training=None, mask=None):
            return 0.5 * super().call(inputs, training, mask)

    x = keras.Input((4,))
    assert internals.is_functional(chain())
    assert not internals.is_functional(Doubling())
    assert not internals.is_functional(Halved(x, layers.Dense(2)(x)))


def test_a_sequential_model_holds_a_functional_one_once_its_input_is_known():
    model = keras.Sequential([layers.Dense(3)])
    assert internals.functional_of(model) is None
    model.build((None, 4))
    assert internals.is_functional(internals.functional_of(model))


def test_nodes_come_after_those_that_they_read():
    nodes = list(internals.nodes_in_order(chain()))
    assert [node.operation.name for node in nodes] == ["x", "a", "b", "b"]
    assert [node.is_input for node in nodes] == [True, False, False, False]
    for before, after in itertools.pairwise(nodes):
        assert after.input_tensors[0] is after.arguments.args[0] is before.outputs[0]


def test_a_layer_knows_its_calls_and_its_readers():
    model = chain()
    a, b = model.get_layer("a"), model.get_layer("b")
    assert len(internals.nodes_of(a)) == 1 and len(internals.nodes_of(b)) == 2
    assert [node.operation for node in internals.reading_nodes(a)] == [b]
    assert [node.operation for node in internals.reading_nodes(b)] == [b]  # the model's output is read by no call


def test_a_tensor_knows_where_it_comes_from():
    x = keras.Input((4,))
    operation, node_index, tensor_index = internals.origin(ops.split(x, 2, axis=-1)[1])
    assert type(operation).__name__ == "Split" and (node_index, tensor_index) == (0, 1)
    model = chain()
    history = internals.origin(model.outputs[0])
    assert (history.operation, history.node_index) == (model.get_layer("b"), 1)
    assert internals.nodes_of(history.operation)[history.node_index].outputs[0] is model.outputs[0]


def test_nodes_of_calls_within_are_removed_also_after_an_error():
    model = chain()
    before = [(internals.nodes_of(layer), internals.reading_nodes(layer)) for layer in model.layers]
    with pytest.raises(RuntimeError), internals.removing_nodes(model):
        model.get_layer("b")(model.get_layer("a")(keras.Input((4,))))
        assert len(internals.nodes_of(model.get_layer("a"))) == 2
        raise RuntimeError
    assert [(internals.nodes_of(layer), internals.reading_nodes(layer)) for layer in model.layers] == before


# Tracing.


@pytest.mark.parametrize("training", [True, False])
def test_a_call_around_says_whether_this_is_training(training):
    class Asking(layers.Layer):
        def call(self, inputs, training=None):
            self.asked = training
            return inputs

    asking = Asking()
    with internals.calling(layers.Layer(), training):
        asking(np.zeros((1, 2)))
    assert asking.asked is training
    asking(np.zeros((1, 2)))
    assert not asking.asked


def test_names_are_counted():
    layers.Dense(1)
    counters = internals.name_counters()
    assert counters["dense"] == 1
    counters["dense"] = 7
    assert layers.Dense(1).name == "dense_7"


def test_random_numbers_without_a_seed_change_the_global_state():
    state = internals.global_random_state()
    before = np.array(ops.convert_to_numpy(state))
    keras.random.normal((2,))
    assert state is internals.global_random_state()
    assert not np.array_equal(ops.convert_to_numpy(state), before)


def test_the_operation_of_a_reshape_has_its_shape():
    operation = internals.origin(ops.reshape(keras.Input((4,)), (-1, 2, 2))).operation
    assert isinstance(operation, internals.ReshapeOperation) and operation.newshape == (-1, 2, 2)
    assert internals.ReshapeOperation((-1, 4), name="flat")(keras.Input((2, 2))).shape == (None, 4)


# Layers.


def test_sublayers_are_found_at_all_depths():
    block = Block()
    assert [layer.name for layer in internals.sublayers(block)] == ["dense", "repeated", "inner"]
    assert [layer.name for layer in internals.sublayers(block, recursive=False)] == ["dense", "repeated"]
    assert internals.sublayers(block.dense) == []


def test_own_variables_are_not_those_of_the_layers_within():
    block = Block()
    block.build((None, 3, 4))
    assert [v.name for v in internals.own_variables(block)] == ["gain", "offset"]
    assert len(block.weights) == 6


def test_shapes_that_a_layer_was_built_with_are_kept_as_they_were_given():
    class Pair(layers.Layer):
        def build(self, first_shape, second_shape):
            pass

    pair, add = Pair(), layers.Add()
    assert internals.built_shapes(pair) is None
    pair.build((None, 2), (None, 3))
    assert internals.built_shapes(pair) == {"first_shape": (None, 2), "second_shape": (None, 3)}
    add.build([(None, 2), (None, 2)])
    assert internals.built_shapes(add) == {"input_shape": [(None, 2), (None, 2)]}


def test_bases_of_the_backend_are_told_from_layers():
    of_backend = [base.__name__ for base in layers.Dense.__mro__ if internals.is_of_backend(base)]
    layer = {"tensorflow": "TFLayer", "jax": "JaxLayer", "torch": "TorchLayer"}[keras.backend.backend()]
    assert layer in of_backend and {"Dense", "Layer"}.isdisjoint(of_backend)
    assert not internals.is_of_backend(layers.JaxLayer)


# Attention layers.


def multi_head(**kwargs):
    layer = layers.MultiHeadAttention(2, 4, **kwargs)
    layer.build((None, 3, 6), (None, 5, 6))
    return layer


def grouped(**kwargs):
    layer = layers.GroupQueryAttention(4, 4, 2, **kwargs)
    layer.build((None, 3, 6), (None, 5, 6))
    return layer


@pytest.mark.parametrize("make", [multi_head, grouped])
def test_the_parts_of_an_attention_layer_compute_what_it_does(make):
    layer = make()
    query, value = (np.random.default_rng(0).normal(size=(2, n, 6)).astype("float32") for n in (3, 5))
    q, k, v = (internals.projection(layer, name)(x) for name, x in (("query", query), ("key", value), ("value", value)))
    operands = (k, q)
    if make is grouped:
        k, v = (ops.repeat(x, layer.num_repeats, axis=2) for x in (k, v))
        operands = (q, k)
    assert internals.score_scale(layer) == 0.5  # of heads of size 4
    scores = ops.einsum(internals.score_equation(layer), *operands) * internals.score_scale(layer)
    mask = internals.merged_mask(layer, query, value, use_causal_mask=True)
    probabilities = internals.dropout_layer(layer)(internals.masked_softmax(layer, scores, mask))
    seen = ops.einsum(internals.value_equation(layer), probabilities, v)
    own = internals.projection(layer, "output")(seen)
    np.testing.assert_allclose(
        ops.convert_to_numpy(own),
        ops.convert_to_numpy(layer(query, value, use_causal_mask=True, return_attention_scores=True)[0]),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("make", [multi_head, grouped])
def test_an_attention_layer_without_an_option_has_no_part_for_it(make):
    layer = make()
    assert internals.projection(layer, "gate") is None
    assert internals.sliding_window(layer) is None
    assert internals.merged_mask(layer, np.zeros((1, 3, 6)), np.zeros((1, 5, 6))) is None
    assert internals.softmax_layer(layer).axis in (-1, (3,), (-1,))
    assert internals.dropout_layer(make(dropout=0.25)).rate == 0.25


@pytest.mark.parametrize("make", [multi_head, grouped])
def test_an_attention_layer_can_have_a_gate_and_a_window_where_keras_has_them(make):
    known = inspect.signature(type(make()).__init__).parameters
    options = {name: value for name, value in {"use_gate": True, "sliding_window": 2}.items() if name in known}
    layer = make(**options)
    gate = internals.projection(layer, "gate")
    assert isinstance(gate, layers.EinsumDense) if "use_gate" in options else gate is None
    assert internals.sliding_window(layer) == options.get("sliding_window")


def test_attention_scores_are_scaled_products_and_masked_by_values_or_time():
    layer = layers.Attention(use_scale=True)
    query, key = np.ones((1, 2, 3), "float32"), np.ones((1, 2, 3), "float32")
    layer.build([query.shape, key.shape])
    layer.scale.assign(2.0)
    scores = internals.attention_scores(layer, query, key)
    assert (ops.convert_to_numpy(scores) == 6.0).all()
    values = ops.convert_to_tensor([[True, False]])
    assert internals.score_mask(layer, scores, None, False) is None
    assert ops.convert_to_numpy(internals.score_mask(layer, scores, values, False)).tolist() == [[True, False]]
    causal = internals.score_mask(layer, scores, None, True)
    assert ops.convert_to_numpy(causal).tolist() == [[[True, False], [True, True]]]


def test_values_and_scores_of_attention_are_changed_within_a_context():
    layer, x = layers.Attention(), np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    before = [ops.convert_to_numpy(y) for y in layer([x, x], return_attention_scores=True)]
    with internals.with_changed_values(layer, lambda tensor: 2 * tensor):
        within = [ops.convert_to_numpy(y) for y in layer([x, x], return_attention_scores=True)]
    after = [ops.convert_to_numpy(y) for y in layer([x, x], return_attention_scores=True)]
    for a, b, c in zip(before, within, after, strict=True):
        np.testing.assert_allclose(b, 2 * a, rtol=1e-6)
        np.testing.assert_array_equal(a, c)


# The backend.


def test_variables_keep_their_dtype_without_autocast():
    class Mixed(layers.Layer):
        def build(self, input_shape):
            self.gain = self.add_weight(name="gain", shape=())

        def call(self, inputs):
            with internals.without_autocast():
                self.stored = keras.backend.standardize_dtype(ops.convert_to_tensor(self.gain).dtype)
            self.cast = keras.backend.standardize_dtype(ops.convert_to_tensor(self.gain).dtype)
            return inputs

    layer = Mixed(dtype="mixed_float16")
    layer(np.zeros((1, 2), "float32"))
    assert (layer.stored, layer.cast) == ("float32", "float16")


def test_the_innermost_stateless_scope_is_the_current_one():
    assert internals.current_stateless_scope() is None
    with keras.StatelessScope() as outer:
        with keras.StatelessScope() as inner:
            assert internals.current_stateless_scope() is inner
        assert internals.current_stateless_scope() is outer
    assert internals.current_stateless_scope() is None


def test_a_mask_can_be_taken_off_a_tensor():
    x = layers.Masking()(np.array([[[0.0], [1.0]]], "float32"))
    assert ops.convert_to_numpy(internals.keras_mask(x)).tolist() == [[False, True]]
    internals.remove_keras_mask(x)
    assert internals.keras_mask(x) is None


# Training, data and saving.


def test_arguments_of_compile_are_the_objects_that_were_given():
    def loss(y, x):
        return ops.mean(y - x)

    model = chain()
    assert internals.compile_arguments(model) is None
    optimizer = keras.optimizers.SGD(0.5)
    model.compile(optimizer, loss, metrics=["mae"])
    arguments = internals.compile_arguments(model)
    assert arguments["loss"] is loss and arguments["optimizer"] is optimizer and arguments["metrics"] == ["mae"]


def test_data_comes_in_batches():
    x, y = np.arange(10.0).reshape(5, 2), np.arange(5.0)

    def inputs(adapter):
        return (keras.utils.unpack_x_y_sample_weight(batch)[0] for batch in adapter.get_numpy_iterator())

    adapter = internals.data_adapter(x, batch_size=2)
    assert adapter.num_batches == 3
    assert [batch.tolist() for batch in inputs(adapter)] == [x[:2].tolist(), x[2:4].tolist(), x[4:].tolist()]

    def endless():
        while True:
            yield x, y

    adapter = internals.data_adapter(endless(), batch_size=None)
    assert adapter.num_batches is None
    np.testing.assert_array_equal(next(inputs(adapter)), x)


def test_a_config_with_code_is_trusted_within_the_context_alone():
    def config():
        return keras.saving.serialize_keras_object(layers.Lambda(lambda x: 2.0 * x))["config"]

    class Holding(layers.Layer):
        @classmethod
        def from_config(cls, own):
            with internals.trusting_configs():
                assert layers.Lambda.from_config(config()).function(3.0) == 6.0
            with pytest.raises(ValueError, match="arbitrary code execution"):
                layers.Lambda.from_config(config())
            return cls(**own)

    saved = keras.saving.serialize_keras_object(Holding(name="loaded"))
    loaded = keras.saving.deserialize_keras_object(saved, custom_objects={"Holding": Holding}, safe_mode=True)
    assert loaded.name == "loaded"


# The rule: no other module of the package uses what Keras has not made public.


@functools.cache
def private_names_of_keras() -> frozenset[str]:
    """Names of one underscore that Keras' source reads or sets on an object."""
    sources = [path for path in pathlib.Path(keras.__file__).parent.rglob("*.py") if not path.stem.endswith("_test")]
    return frozenset(name for path in sources for name in re.findall(r"\.(_[a-zA-Z]\w*)", path.read_text("utf-8")))


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__")


def names_of_our_own(tree: ast.AST) -> set[str]:
    """The names that a module's functions, classes and assignments define."""
    own: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.id if isinstance(node, ast.Name) else node.attr)
    return own


def is_ourself(node: ast.AST) -> bool:
    """Whether this is `self`, `cls` or `super()`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_uses(tree: ast.AST, own: set[str]) -> list[str]:
    """What a module uses of others that is not public: `line: name`.

    An attribute of one underscore is ours on `self` if the package defines it; on anything else, such as a layer, Keras
    must not have it as well. A name made by an f-string is never ours.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            uses = [(node.value, node.attr)]
        elif isinstance(node, ast.Call) and name_of(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            uses = [(node.args[0], name) for name in strings_in(node.args[1])]
        elif isinstance(node, ast.Call) and name_of(node.func) in ("attrgetter", "methodcaller"):
            uses = [(node, name) for argument in node.args for name in strings_in(argument)]
        else:
            continue
        for owner, name in uses:
            ours = name in own and (is_ourself(owner) or name not in private_names_of_keras())
            if is_private(name) and not ours:
                found.append(f"{node.lineno}: {name}")
    return found


def name_of(function: ast.AST) -> str | None:
    """The last name in what is called."""
    return getattr(function, "attr", getattr(function, "id", None))


def strings_in(node: ast.AST) -> list[str]:
    """A string, or what an f-string starts with: the first part and an ellipsis."""
    if isinstance(node, ast.JoinedStr):
        return [f"{part}…" for part in strings_in(node.values[0])]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def test_no_other_module_uses_what_keras_has_not_made_public():
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py")) if path != ROOM}
    own = set().union(*map(names_of_our_own, trees.values()))
    found = {str(path.relative_to(PACKAGE)): private_uses(tree, own) for path, tree in trees.items()}
    assert {path: uses for path, uses in found.items() if uses} == {}, (
        "Put it into model/keras_internals.py, with a sentence why it is needed, or use what is public."
    )


def test_no_other_module_speaks_of_the_source_of_keras():
    paths = sorted(PACKAGE.rglob("*.py"))
    assert [path for path in paths if "keras.src" in path.read_text("utf-8")] == [ROOM]


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("layer._flatten_layers()", ["1: _flatten_layers"]),
        ("getattr(model, '_functional', None)", ["1: _functional"]),
        ("getattr(layer, f'_{name}_dense')", ["1: _…"]),
        ("operator.attrgetter('_losses')", ["1: _losses"]),
        ("self._losses", ["1: _losses"]),
        ("class A:\n def _softmax(self): self._softmax()", []),
        ("class A:\n def _softmax(self): self.layer._softmax()", ["2: _softmax"]),
        ("model._quantized_by_us = 1\nmodel._quantized_by_us", []),
        ("layer.__class__", []),
    ],
)
def test_the_rule_tells_ours_from_what_is_private(source, uses):
    tree = ast.parse(source)
    assert private_uses(tree, names_of_our_own(tree)) == uses


def test_each_entry_says_why_it_is_needed():
    tree = ast.parse(ROOM.read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 25
    assert [f.name for f in functions if "Why: " not in (ast.get_docstring(f) or "")] == []


def test_layers_read_their_variables_in_another_dtype_within_a_context():
    layer = keras.layers.Dense(2, dtype="float16")
    layer.build((None, 3))
    layer.dtype_policy = "float32"
    with internals.autocasting("float32"):
        assert keras.backend.standardize_dtype(layer(np.ones((1, 3), "float32")).dtype) == "float32"
        assert keras.backend.standardize_dtype(layer.kernel.value.dtype) == "float32"
    assert keras.backend.standardize_dtype(layer.kernel.value.dtype) == "float16"


def test_whether_keras_computes_a_spec():
    class Layer(keras.layers.Layer):
        def call(self, x):
            seen.append(internals.computes_spec())
            return x

    seen: list[bool] = []
    Layer()(keras.Input((2,)))
    Layer()(np.ones((1, 2), "float32"))
    assert seen[0] and not seen[-1]
