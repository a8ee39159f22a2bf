"""The names of inputs and outputs: a float file and a quantized file are interchangeable."""

import keras
import onnx
import pytest
import small_models
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tensorflow_quantization import export_onnx, quantize_model
from tensorflow_quantization.export.names import names_in_signature
from tensorflow_quantization.model.graph import LayerGraph


def names(model, path):
    graph = onnx.load(export_onnx(model, path)).graph
    return [x.name for x in graph.input], [x.name for x in graph.output]


def with_outputs(structure):
    """A model that returns `structure(heads)`; `heads()` is a new layer's output each time."""
    inputs = keras.Input((4,), name="x")
    x = layers.Dense(4, name="body")(inputs)
    return keras.Model(inputs, structure(lambda **arguments: layers.Dense(2, **arguments)(x)))


def activated():
    """For ONNX Runtime, the sum and the activation are quantized as two layers."""
    inputs = keras.Input((6, 6, 3))
    return keras.Model(inputs, layers.Conv2D(4, 3, activation="silu", name="last")(inputs))


class TwoHeads(keras.Model):
    """Subclassed, with a dict in a dict."""

    def __init__(self):
        super().__init__()
        self.cls, self.reg = layers.Dense(2, name="cls"), layers.Dense(3, name="reg")

    def call(self, x):
        return {"scores": self.cls(x), "boxes": {"offsets": self.reg(x)}}


def two_heads():
    model = TwoHeads()
    model(keras.ops.ones((1, 4)))
    return model


MODELS = {
    **small_models.BUILDERS,
    "activated": activated,
    "two_heads": two_heads,
    "ends_in_a_model": small_models.backbone,
    "list": lambda: with_outputs(lambda head: [head(name="a"), head(name="b")]),
    "nested": lambda: with_outputs(lambda head: {"heads": [head(), head()], "all": head()}),
}


@pytest.mark.parametrize("target", [None, "onnxruntime"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:.*never saw data")
def test_quantized_file_has_the_names_of_the_float_file(tmp_path, name, target):
    model = MODELS[name]()
    expected = names(model, tmp_path / "float.onnx")
    assert names(quantize_model(model, target=target), tmp_path / "int8.onnx") == expected
    assert not any("quant_" in x for x in (*expected[0], *expected[1]))


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (lambda head: {"scores": head(name="cls"), "offsets": head(name="reg")}, {"scores", "offsets"}),
        (lambda head: {"heads": [head(), head()], "all": head()}, {"heads_0", "heads_1", "all"}),
        (lambda head: [head(name="cls"), head(name="reg")], {"cls", "reg"}),
        (lambda head: {"a b": head()}, {"a_b"}),
        (lambda head: {"x": head()}, {"x_1"}),  # the input has this name
        (lambda head: {"a": {"b": head()}, "a_b": head()}, {"a_b", "a_b_1"}),
        (lambda head: {"constant": head(), "body/MatMul": head()}, {"constant", "body/MatMul"}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*never saw data")
def test_outputs_have_their_keys(tmp_path, structure, expected):
    model = with_outputs(structure)
    for exported in (model, quantize_model(model, target="onnxruntime")):
        _, found = names(exported, tmp_path / "m.onnx")
        assert set(found) == expected


KEYS = st.sampled_from(["x", "a", "b", "a_b", "0", "constant", "body", "quant_body", "body/MatMul", "quantized_0"])
STRUCTURES = st.recursive(
    st.none(),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=4,
)


@settings(max_examples=15)
@given(STRUCTURES)
@pytest.mark.filterwarnings("ignore:.*never saw data")
def test_any_structure_of_outputs(tmp_path_factory, structure):
    keras.utils.clear_session(free_memory=False)
    folder = tmp_path_factory.mktemp("names")

    def filled(head):
        # Not keras.tree: it takes `None` for a leaf or not, by its implementation.
        def fill(part):
            if isinstance(part, dict):
                return {key: fill(value) for key, value in part.items()}
            return [fill(value) for value in part] if isinstance(part, list) else head()

        return fill(structure)

    model = with_outputs(filled)
    found = names(model, folder / "float.onnx")
    assert len({*found[0], *found[1]}) == len(found[0]) + len(found[1])
    assert names(quantize_model(model, target="openvino"), folder / "int8.onnx") == found
    in_signature = names_in_signature(LayerGraph.trace(model))
    assert len(set(in_signature)) == len(in_signature) == len(found[1])
