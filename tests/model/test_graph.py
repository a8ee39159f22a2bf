import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops

from tensorflow_quantization import QuantizationSpec, quantize_model
from tensorflow_quantization.model.graph import LayerGraph, substitute
from tensorflow_quantization.model.keras_internals import nodes_of, reading_nodes, sublayers


def paths(graph):
    return [call.path for call in graph.calls]


def node_counts(model):
    return {id(layer): (layer.name, len(nodes_of(layer)), len(reading_nodes(layer))) for layer in sublayers(model)}


def test_calls_are_in_topological_order_with_their_neighbours(residual):
    graph = LayerGraph.trace(residual)
    assert paths(graph) == ["stem", "conv", "bn", "add", "relu", "gap", "dense"]
    (add,) = graph.find("add")
    assert [call.name for call in graph.predecessors(add)] == ["stem", "bn"]
    assert [call.name for call in graph.successors(graph.find("stem")[0])] == ["conv", "add"]
    assert [tensor.source.name for tensor in graph.inputs] == ["image"]
    assert graph.predecessors(graph.find("stem")[0]) == []
    assert graph.is_output(graph.find("dense")[0].outputs[0])
    assert add.outputs[0].shape == (None, 8, 8, 4)


def test_consumer_that_reads_a_tensor_twice_is_listed_once():
    x = keras.Input((4,))
    y = layers.Dense(4, name="dense")(x)
    graph = LayerGraph.trace(keras.Model(x, layers.Add(name="add")([y, y])))
    (dense,) = graph.find("dense")
    assert [call.name for call in graph.consumers(dense.outputs[0])] == ["add"]
    assert len(graph.find("add")[0].inputs) == 2


@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_tracing_leaves_no_mark(name):
    model = small_models.BUILDERS[name]()
    counts, weights = node_counts(model), small_models.values(model)
    LayerGraph.trace(model).flatten()
    assert node_counts(model) == counts
    small_models.assert_same_arrays(small_models.values(model), weights)


def test_nested_model_is_one_call_until_flattened():
    graph = LayerGraph.trace(small_models.nested())
    assert paths(graph) == ["backbone", "gap", "head"]
    assert paths(graph.find("backbone")[0].subgraph) == ["backbone/conv", "backbone/bn", "backbone/relu"]
    flat = graph.flatten()
    assert paths(flat) == ["backbone/conv", "backbone/bn", "backbone/relu", "gap", "head"]
    (gap,) = flat.find("gap")
    assert [call.path for call in flat.predecessors(gap)] == ["backbone/relu"]
    assert flat.find("relu") == flat.find("backbone/relu")


def test_model_called_twice_is_flattened_into_two_calls_of_the_same_layers():
    flat = LayerGraph.trace(small_models.siamese()).flatten()
    assert paths(flat) == ["encoder/conv", "encoder/gap"] * 2 + ["concat", "dense"]
    first, second = flat.find("conv")
    assert first.operation is second.operation
    assert [call.inputs[0].name for call in (first, second)] == ["left", "right"]


def test_shared_layer_has_a_call_each_time():
    graph = LayerGraph.trace(small_models.shared_layer())
    assert paths(graph) == ["shared"] * 3
    assert len({id(call.operation) for call in graph.calls}) == 1


def test_structures_of_inputs_and_outputs_are_kept():
    graph = LayerGraph.trace(small_models.dict_in_and_out())
    assert sorted(graph.input_structure) == ["left", "right"]
    assert sorted(graph.output_structure) == ["box", "class"]
    assert graph.output_structure["class"].producer.name == "class"


def test_operations_are_calls_but_no_layers():
    graph = LayerGraph.trace(small_models.operations())
    assert [call.class_name for call in graph.calls if not call.is_layer] == [
        *["Multiply", "Subtract", "Relu"],
        *["Mean", "Add", "Reshape"],
    ]
    assert [call.name for call in graph.calls if call.is_layer] == ["conv", "dense"]


def test_class_names_are_those_of_the_bases_too():
    class MyConv(layers.Conv2D):
        pass

    x = keras.Input((8, 8, 3))
    (call,) = LayerGraph.trace(keras.Model(x, MyConv(2, 3)(x))).calls
    assert call.class_names_in_spec[:2] == ["MyConv", "Conv2D"]
    assert call.class_names[0] == "Conv2D"
    assert "Layer" in call.class_names
    assert "object" not in call.class_names


def test_subclassed_model_reads_like_a_functional_one():
    model = small_models.subclassed()
    graph = LayerGraph.trace(model)
    assert [call.class_name for call in graph.calls] == ["Conv2D", "Relu", "Add", "GlobalAveragePooling2D", "Dense"]
    assert graph.find("conv")[0].operation is model.conv


def test_training_is_no_argument_of_a_layer_without_this_parameter():
    inputs = keras.Input((4, 4, 3))
    (call,) = LayerGraph.trace(keras.Model(inputs, layers.Conv2D(2, 1)(inputs, training=None))).calls
    assert [tensor.shape for tensor in call.operands] == [(None, 4, 4, 3)]


def test_subclassed_model_with_two_arguments():
    class TwoArguments(WithoutShapes):
        def build(self, left_shape, right_shape):
            self.dense.build(left_shape)

    model = TwoArguments()
    model(np.zeros((2, 4), "float32"), np.zeros((2, 3), "float32"))
    graph = LayerGraph.trace(model)
    assert [tensor.shape for tensor in graph.inputs] == [(None, 4), (None, 3)]
    assert [tensor.name for tensor in graph.inputs] == ["left", "right"]


@pytest.mark.parametrize(
    ("keys", "names"), [(("user", "item"), {"user", "item"}), (("dense", "item"), {"input_layer", "item"})]
)
def test_subclassed_model_of_a_dict_has_inputs_of_these_names(keys, names):
    """A key that is the name of a layer cannot be the name of an input."""

    class OfADict(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2, name="dense")

        def call(self, inputs):
            return self.dense(inputs[keys[0]]) + self.dense(inputs[keys[1]])

    model = OfADict()
    model({key: np.zeros((2, 4), "float32") for key in keys})
    graph = LayerGraph.trace(model)
    assert {tensor.name for tensor in graph.inputs} == names


def test_batch_size_stays_dynamic_for_a_subclassed_model_called_on_data():
    model = small_models.Subclassed()
    model(np.zeros((2, 8, 8, 3), "float32"))
    assert LayerGraph.trace(model).inputs[0].shape == (None, 8, 8, 3)


def test_find_names_the_closest(residual):
    with pytest.raises(ValueError, match=r"no layer 'dens'\. Did you mean 'dense'"):
        LayerGraph.trace(residual).find("dens")


def test_substitute_reaches_into_structures(residual):
    graph = LayerGraph.trace(residual)
    (add,) = graph.find("add")
    assert substitute([add.inputs, {"x": add.outputs[0], "y": 3}], lambda tensor: tensor.shape[-1]) == [
        [4, 4],
        {"x": 4, "y": 3},
    ]


def test_text_shows_every_call(residual):
    lines = repr(LayerGraph.trace(residual)).splitlines()
    assert lines[0] == "LayerGraph of 'residual': 7 calls"
    assert lines[4].strip() == "add (Add) <- stem, bn -> (None, 8, 8, 4)"


def test_calls_that_no_output_depends_on_are_not_live():
    image = keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 3, name="first")(image)
    backbone = keras.Model(image, [first, layers.Conv2D(4, 3, name="second")(first)], name="backbone")
    inputs = keras.Input((8, 8, 3))
    graph = LayerGraph.trace(keras.Model(inputs, layers.ReLU(name="relu")(backbone(inputs)[0]))).flatten()
    assert [call.path for call in graph.calls] == ["backbone/first", "backbone/second", "relu"]
    assert [call.path for call in graph.live().calls] == ["backbone/first", "relu"]


def test_flat_shapes_are_those_of_the_call_and_not_of_the_nested_model():
    body = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="conv")])
    inputs = keras.Input((8, 8, 3))
    flat = LayerGraph.trace(keras.Model(inputs, body(inputs))).flatten()
    assert flat.find("conv")[0].outputs[0].shape == (None, 6, 6, 2)


class WithoutShapes(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, name="dense")

    def call(self, left, right):
        return self.dense(left) + right


def test_argument_of_unknown_shape_is_refused_with_what_to_do():
    model = WithoutShapes()
    model(np.zeros((2, 4), "float32"), np.zeros((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"takes left, right, but .* Give the model a build\(self, left_shape, right"):
        LayerGraph.trace(model)


class Perceiver(keras.Model):
    """A weight of the model, or a constant, is an input of a nested model."""

    def __init__(self, constant=False):
        super().__init__()
        queries, data = keras.Input((4, 8), name="queries"), keras.Input((16, 8), name="data")
        self.cross = keras.Model([queries, data], layers.Attention(name="attention")([queries, data]), name="cross")
        self.constant = constant

    def build(self, shape):
        self.latents = self.add_weight(shape=(4, 8), name="latents")
        super().build(shape)

    def call(self, inputs):
        queries = ops.ones((4, 8)) if self.constant else self.latents
        return self.cross([ops.expand_dims(queries, 0), inputs])


def test_a_weight_of_a_subclassed_model_is_an_input_of_a_nested_model():
    model = Perceiver()
    model(np.zeros((2, 16, 8), "float32"))
    flat = LayerGraph.trace(model).flatten()
    assert paths(flat) == ["latents", "expand_dims", "cross/attention"]
    assert [x.shape for x in flat.find("attention")[0].inputs] == [(1, 4, 8), (None, 16, 8)]
    assert flat.outputs[0].shape == (None, 4, 8)  # Keras says 1, the batch of the queries
    assert isinstance(model.latents, keras.Variable)


def test_a_constant_that_is_an_input_of_a_nested_model_is_refused_with_what_to_do():
    model = Perceiver(constant=True)
    model(np.zeros((2, 16, 8), "float32"))
    with pytest.raises(ValueError, match=r"'cross' has 2 inputs \(queries, data\).* passes 1 .*`call` of a layer"):
        LayerGraph.trace(model).flatten()


def test_a_weight_whose_use_needs_a_variable_does_not_forbid_tracing():
    class ReadsValue(keras.Model):
        def build(self, shape):
            self.offset = self.add_weight(shape=shape[1:], name="offset")
            super().build(shape)

        def call(self, inputs):
            return inputs + self.offset.value

    model = ReadsValue()
    model(np.zeros((2, 3), "float32"))
    assert paths(LayerGraph.trace(model)) == ["add"]


class NumpyInCall(keras.Model):
    def call(self, inputs):
        return np.array(inputs)  # this line


class BranchOnValues(keras.Model):
    def call(self, inputs):
        if ops.sum(inputs) > 0:
            return inputs
        return -inputs


@pytest.mark.parametrize("model_class", [NumpyInCall, BranchOnValues])
def test_call_that_cannot_be_traced_is_refused_with_its_line(model_class):
    model = model_class(name="strange")
    model._build_shapes_dict = {"input_shape": (None, 4)}
    model.built = True
    with pytest.raises(ValueError, match=r"'strange' .* cannot be traced.*test_graph.py, line \d+"):
        LayerGraph.trace(model)


@pytest.mark.parametrize(
    "model",
    [keras.Sequential([layers.Dense(2)]), small_models.Subclassed()],
    ids=["sequential", "subclassed"],
)
def test_model_that_is_not_built_is_refused_with_what_to_do(model):
    with pytest.raises(ValueError, match=r"is not built.*Call it once on a batch of data"):
        LayerGraph.trace(model)


@pytest.mark.parametrize("thing", [None, "model", layers.Dense(2), lambda x: x])
def test_what_is_no_keras_model_is_refused(thing):
    with pytest.raises(TypeError, match=r"Expected a keras\.Model, got"):
        LayerGraph.trace(thing)


def test_a_mask_is_no_operand_of_a_wrapper():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    model = keras.Model(tokens, layers.Lambda(lambda x: x * 2.0, name="twice")(x))
    spec = QuantizationSpec()
    spec.add("twice")
    quantized = quantize_model(model, quantization_spec=spec)
    (call,) = LayerGraph.trace(quantized).find("quant_twice")
    assert [tensor.dtype for tensor in call.inputs] == ["float32", "bool"]
    assert call.operands == call.inputs[:1]
