import keras
import pytest
from keras import Input, Model, layers, ops

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.specs import states_its_output, with_true_specs


class Doubled(layers.Layer):
    """States the shape of its input, and returns two tensors."""

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return x[:, 1:], x


class TakesMore(layers.Dense):
    """`compute_output_spec` lacks an argument of `call`."""

    def compute_output_spec(self, inputs):
        return super().compute_output_spec(inputs)

    def call(self, inputs, cache=None):
        return super().call(inputs)


class NoneBeside(layers.Layer):
    def call(self, x):
        return {"output": x * 2.0, "cache": None, "steps": 3}


class Holder(layers.Layer):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def returned(layer, x, **kwargs):
    with with_true_specs(Holder(layer)):
        return layer(x, **kwargs)


def test_what_call_returns_counts():
    first, second = returned(Doubled(), Input(batch_shape=(2, 5, 3)))
    assert (first.shape, second.shape) == ((2, 4, 3), (2, 5, 3))
    assert returned(TakesMore(4), Input((3,)), cache=None).shape == (None, 4)


def test_a_size_that_only_the_layer_knows():
    class Folded(layers.Layer):
        def compute_output_shape(self, shape):
            return (None, 6)

        def call(self, x):
            return ops.reshape(x, (ops.shape(x)[0] // 2, -1))

    assert returned(Folded(), Input((3,))).shape == (None, 6)


def test_the_layer_keeps_its_class():
    layer = Doubled()
    returned(layer, Input((5, 3)))
    assert type(layer) is Doubled


def test_einsum_dense_states_all_sizes_of_known_inputs():
    layer = layers.EinsumDense("btd,dnh->btnh", output_shape=(None, 2, 4))
    assert returned(layer, Input(batch_shape=(2, 6, 8))).shape == (2, 6, 2, 4)


def test_the_product_of_a_tensor_and_a_number_is_dense():
    """Keras takes it for sparse, and computes another shape then."""
    assert returned(Sum(), Input(batch_shape=(4, 3, 5)) * 2.0).shape == (4, 3, 5)


class Sum(layers.Layer):
    def call(self, x):
        return ops.add(x, ops.ones((1, 1, 5)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere, Keras computes no spec of them")
def test_none_and_numbers_beside_tensors():
    outputs = returned(NoneBeside(), Input((3,)))
    assert (outputs["output"].shape, outputs["cache"], outputs["steps"]) == ((None, 3), None, 3)


@pytest.mark.parametrize(("layer", "states"), [(layers.Dense(3), True), (Doubled(), False), (NoneBeside(), False)])
def test_layers_that_a_functional_model_cannot_hold(layer, states):
    x = Input(batch_shape=(2, 5, 3))
    with with_true_specs(Holder(layer)):
        outputs = [y for y in keras.tree.flatten(layer(x)) if isinstance(y, keras.KerasTensor)]
        (call,) = LayerGraph.read(Model(x, outputs)).calls
    assert states_its_output(call) is states
