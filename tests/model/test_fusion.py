import keras
import numpy as np
import pytest
from keras import layers, ops

from tensorflow_quantization.model.activations import Activation
from tensorflow_quantization.model.fusion import (
    KernelFusion,
    folded_into,
    folded_normalizations,
    fused_calls,
    fused_convolution,
    fused_sum_operand,
    fusing_call,
    unrounded_sum_operand,
)
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.op_traits import Trait, traits

SHAPE = (8, 8, 3)
RELU = KernelFusion(activations=frozenset({Activation.RELU}))


def graph_of(make, shape=SHAPE):
    inputs = keras.Input(shape)
    return LayerGraph.trace(keras.Model(inputs, make(inputs)))


def names(calls):
    return [call.name for call in calls]


def conv(**options):
    return layers.Conv2D(4, 3, name="conv", **options)


def norm(**options):
    return layers.BatchNormalization(name="norm", **options)


def product_of_norm(make, shape=SHAPE):
    graph = graph_of(make, shape)
    (call,) = graph.find("norm")
    product = folded_into(graph, call)
    return product.name if product else None


PRODUCTS = {
    **{f"Conv{rank}D": (getattr(layers, f"Conv{rank}D")(4, 3, name="p"), (8,) * rank + (3,)) for rank in (1, 2, 3)},
    **{
        f"Conv{rank}DTranspose": (getattr(layers, f"Conv{rank}DTranspose")(4, 3, name="p"), (8,) * rank + (3,))
        for rank in (1, 2, 3)
    },
    "DepthwiseConv1D": (layers.DepthwiseConv1D(3, name="p"), (8, 3)),
    "DepthwiseConv2D": (layers.DepthwiseConv2D(3, name="p"), SHAPE),
    "SeparableConv1D": (layers.SeparableConv1D(4, 3, name="p"), (8, 3)),
    "SeparableConv2D": (layers.SeparableConv2D(4, 3, name="p"), SHAPE),
    "Dense": (layers.Dense(4, name="p"), (5,)),
    "Dense of images": (layers.Dense(4, name="p"), SHAPE),
    "EinsumDense": (layers.EinsumDense("abc,cd->abd", (None, 4), name="p"), (5, 6)),
    "EinsumDense of dots": (layers.EinsumDense("...c,cd->...d", 4, name="p"), (5, 6)),
    "EinsumDense whose channels are in the middle": (layers.EinsumDense("abc,bd->adc", (4, 6), name="p"), (5, 6)),
    "EinsumDense that sums two axes": (layers.EinsumDense("abc,bcd->ad", 4, name="p"), (5, 6)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_normalization_is_folded_into_every_product(name):
    product, shape = PRODUCTS[name]
    axis = 1 if name.endswith("in the middle") else -1
    assert product_of_norm(lambda x: norm(axis=axis)(product(x)), shape) == "p"


@pytest.mark.parametrize("attention", [layers.MultiHeadAttention, layers.GroupQueryAttention])
def test_normalization_is_folded_into_the_output_projection_of_attention(attention):
    sizes = (2, 4) if attention is layers.MultiHeadAttention else (4, 2, 2)
    assert product_of_norm(lambda x: norm()(attention(*sizes, name="p")(x, x)), (6, 8)) == "p"


class MyConv(layers.Conv2D):
    """A convolution by another name."""


class HalfConv(layers.Conv2D):
    """A convolution and something else."""

    def call(self, x):
        return super().call(x) / 2


class Dense(layers.Layer):
    """A layer that shares no more than its name with Keras'."""

    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("make", "folded"),
    [
        (lambda x: norm()(MyConv(4, 3, name="p")(x)), True),
        (lambda x: norm()(HalfConv(4, 3)(x)), False),
        (lambda x: norm()(Dense()(x)), False),
        (lambda x: norm()(layers.Dropout(0.1)(layers.Conv2D(4, 3, name="p")(x))), True),
        (lambda x: norm()(layers.Identity()(layers.Conv2D(4, 3, name="p")(x))), True),
        (lambda x: norm()(layers.Activation("linear")(layers.Conv2D(4, 3, name="p")(x))), True),
        (lambda x: norm()(layers.BatchNormalization()(layers.Conv2D(4, 3, name="p")(x))), True),
        (lambda x: norm()(layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3, name="p")(x))), False),
        (lambda x: norm(axis=1)(layers.Conv2D(4, 3)(x)), False),
        (lambda x: norm(axis=1)(layers.Conv2D(4, 3, data_format="channels_first", name="p")(x)), True),
        (lambda x: norm()(layers.Conv2D(4, 3, data_format="channels_first")(x)), False),
        (lambda x: norm()(layers.Conv2D(4, 3, activation="relu")(x)), False),
        (lambda x: norm()(layers.ReLU()(layers.Conv2D(4, 3)(x))), False),
        (lambda x: norm()(layers.MaxPooling2D()(layers.Conv2D(4, 3)(x))), False),
        (lambda x: norm()(layers.Flatten()(layers.Conv2D(4, 3)(x))), False),
        (lambda x: norm()(x), False),
        (lambda x: norm()(layers.EinsumDense("abcd,cde->abce", (None, 8, 4))(x)), False),
        (lambda x: norm()(layers.EinsumDense("abcd,def->abcef", (None, None, 4, 5))(x)), False),
    ],
)
def test_normalization_is_folded_only_over_channels_that_a_product_alone_computes(make, folded):
    assert product_of_norm(make) == ("p" if folded else None)


def test_normalization_of_what_somebody_else_reads_is_not_folded():
    def make(x):
        y = conv()(x)
        return layers.Add()([y, norm()(y)])

    assert product_of_norm(make) is None


def test_normalization_of_an_output_of_the_model_is_not_folded():
    inputs = keras.Input(SHAPE)
    y = conv()(inputs)
    graph = LayerGraph.trace(keras.Model(inputs, [y, norm()(y)]))
    assert folded_into(graph, graph.find("norm")[0]) is None


def test_product_knows_the_normalizations_that_it_takes_up():
    def make(x):
        x = layers.Dropout(0.1)(norm()(conv()(x)))
        return layers.BatchNormalization(name="after_relu")(layers.ReLU()(layers.BatchNormalization(name="two")(x)))

    graph = graph_of(make)
    assert names(folded_normalizations(graph, graph.find("conv")[0])) == ["norm", "two"]


@pytest.mark.parametrize(
    ("make", "product"),
    [
        (lambda x: conv()(x) * 0.25, "conv"),
        (lambda x: -0.25 * norm()(conv()(x)), "conv"),
        (lambda x: conv()(x) * 0.5 * 0.5, "conv"),
        (lambda x: conv(activation="relu")(x) * 0.25, None),
        (lambda x: layers.ReLU()(conv()(x)) * 0.25, None),
        (lambda x: conv()(x) * np.ones((6, 6, 1), "float32"), None),
        (lambda x: x * 0.25, None),
    ],
)
def test_a_number_is_folded_into_a_product(make, product):
    inputs = keras.Input(SHAPE)
    graph = LayerGraph.trace(keras.Model(inputs, layers.ReLU()(make(inputs))))
    factor = [call for call in graph.calls if call.class_name == "Multiply"][-1]
    found = folded_into(graph, factor)
    assert (found and found.name) == product


def test_a_sum_fuses_into_a_convolution_times_a_number():
    inputs = keras.Input(SHAPE)
    scaled = conv(padding="same")(inputs) * 0.25
    graph = LayerGraph.trace(keras.Model(inputs, layers.Add()([layers.Conv2D(4, 1)(inputs), scaled])))
    assert unrounded_sum_operand(graph, graph.calls[-1]) is graph.calls[-1].inputs[1]


CHAINS = {
    "norm": layers.BatchNormalization,
    "relu": layers.ReLU,
    "operation": lambda: ops.relu,
    "dropout": lambda: layers.Dropout(0.1),
    "pool": layers.MaxPooling2D,
}


@pytest.mark.parametrize(
    ("chain", "fused"),
    [
        ([], True),
        (["norm"], True),
        (["relu"], True),
        (["operation"], True),
        (["norm", "relu"], True),
        (["norm", "relu", "dropout"], True),
        (["norm", "dropout"], True),
        (["relu", "norm"], False),
        (["pool"], False),
        (["norm", "pool"], False),
        (["relu", "relu"], False),
    ],
)
@pytest.mark.parametrize("convolution", [layers.Conv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose])
def test_convolution_is_fused_with_normalization_activation_dropout(convolution, chain, fused):
    def make(x):
        options = {"kernel_size": 3} if convolution is layers.DepthwiseConv2D else {"filters": 3, "kernel_size": 3}
        x = convolution(name="conv", **options)(x)
        for name in chain:
            x = CHAINS[name]()(x)
        return x

    graph = graph_of(make)
    found = fused_convolution(graph, graph.outputs[0])
    assert (found.name if found else None) == ("conv" if fused else None)


def test_convolution_that_somebody_else_reads_is_not_fused():
    inputs = keras.Input(SHAPE)
    y = conv()(inputs)
    graph = LayerGraph.trace(keras.Model(inputs, [norm()(y), layers.ReLU(name="relu")(y)]))
    assert fused_convolution(graph, graph.outputs[0]) is None


def test_convolution_that_is_an_output_of_the_model_is_not_fused_further_on():
    inputs = keras.Input(SHAPE)
    y = conv()(inputs)
    graph = LayerGraph.trace(keras.Model(inputs, [y, layers.ReLU(name="relu")(y)]))
    assert fused_convolution(graph, graph.find("relu")[0].outputs[0]) is None
    assert fused_convolution(graph, graph.inputs[0]) is None


@pytest.mark.parametrize("add", [lambda a, b: layers.Add(name="add")([a, b]), ops.add], ids=["layer", "operation"])
def test_sum_is_fused_with_the_last_convolution_that_it_alone_reads(add):
    def make(x):
        return add(layers.Conv2D(4, 3, name="first")(x), norm()(layers.Conv2D(4, 3, name="last")(x)))

    graph = graph_of(make)
    call = graph.calls[-1]
    assert fused_sum_operand(graph, call).producer.name == "norm"
    assert fused_sum_operand(graph, graph.find("norm")[0]) is None


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("relu", [layers.ReLU(), layers.Activation("relu"), ops.relu])
def test_sum_fuses_into_the_convolution_that_is_not_activated_before(relu, turned):
    def make(x):
        branch = layers.Dropout(0.1)(relu(layers.Conv2D(4, 3, padding="same", name="main")(x)))
        shortcut = layers.Conv2D(4, 1, name="projection")(x)
        return layers.Add(name="add")([branch, shortcut][:: -1 if turned else 1])

    graph = graph_of(make)
    assert fused_sum_operand(graph, graph.find("add")[0]).producer.name == "projection"


@pytest.mark.parametrize(
    ("activation", "operand"), [(None, "b"), ("relu", "b"), ("relu6", "b"), ("swish", "a"), ("tanh", "a")]
)
def test_sum_is_added_unrounded_to_what_is_clipped_at_most(activation, operand):
    def make(x):
        a = layers.Conv2D(4, 3, activation="relu", name="a")(x)
        return layers.Add(name="add")([a, layers.Conv2D(4, 3, activation=activation, name="b")(x)])

    graph = graph_of(make)
    assert unrounded_sum_operand(graph, graph.find("add")[0]).producer.name == operand


def test_sum_of_what_somebody_else_reads_is_not_fused():
    def make(x):
        y = conv(padding="same")(x)
        return layers.Add(name="add")([y, layers.ReLU()(y)])

    graph = graph_of(make)
    assert fused_sum_operand(graph, graph.find("add")[0]) is None


@pytest.mark.parametrize(
    ("make", "fused"),
    [
        (lambda x: layers.ReLU(name="relu")(norm()(conv()(x))), ["norm", "relu"]),
        (lambda x: layers.Dropout(0.1, name="drop")(layers.ReLU(name="relu")(conv()(x))), ["relu", "drop"]),
        (lambda x: layers.ReLU(name="relu")(norm()(conv(activation="relu")(x))), []),
        (lambda x: layers.ReLU()(layers.ReLU(name="relu")(conv()(x))), ["relu"]),
        (lambda x: layers.Activation("tanh")(norm()(conv()(x))), ["norm"]),
        (lambda x: norm()(layers.ReLU(name="relu")(conv()(x))), ["relu"]),
    ],
)
def test_kernel_computes_normalization_one_activation_and_dropouts_along(make, fused):
    graph = graph_of(make)
    assert names(fused_calls(graph, graph.find("conv")[0], RELU)) == fused


def test_kernel_without_activation_computes_none_along():
    graph = graph_of(lambda x: layers.ReLU()(conv()(x)))
    fusion = KernelFusion(RELU.activations, without_activation=frozenset({"Conv2D"}))
    assert fused_calls(graph, graph.find("conv")[0], fusion) == []


def test_scalings_in_a_row_are_one_kernel_where_the_runtime_merges_them():
    def make(x):
        x = layers.Rescaling(2.0, name="first")(x)
        return layers.ReLU(name="relu")(norm()(layers.Rescaling(3.0, name="second")(x)))

    graph = graph_of(make)
    (first,) = graph.find("first")
    merging = KernelFusion(RELU.activations, scalings=True)
    assert names(fused_calls(graph, first, merging)) == ["second", "norm", "relu"]
    assert fused_calls(graph, first, RELU) == []
    (norm_call,) = graph.find("norm")
    assert fusing_call(graph, norm_call, merging, lambda call: Trait.SCALES_CHANNELS in traits(call)) is first


def test_call_knows_whose_kernel_computes_it():
    graph = graph_of(lambda x: layers.ReLU(name="relu")(norm()(conv()(x))))

    def is_convolution(call):
        return Trait.CONVOLVES in traits(call)

    for name in ("norm", "relu"):
        assert fusing_call(graph, graph.find(name)[0], RELU, is_convolution).name == "conv"
    assert fusing_call(graph, graph.find("conv")[0], RELU, is_convolution) is None
    assert fusing_call(graph, graph.find("relu")[0], KernelFusion(), is_convolution) is None
