"""`@emitter` as a user writes it: layers of one's own, with weights, in every layout."""

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from onnx_models import assert_agrees, op_counts

from tensorflow_quantization.export import NotExpressibleError, UnsupportedLayerError, Value, emitter, export_onnx
from tensorflow_quantization.export.onnx import fallback, registry
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.wrappers import WeightedBaseQuantizeWrapper


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


class Gain(layers.Layer):
    """Multiplies each channel, and optionally doubles."""

    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), name="gain")

    def call(self, x):
        return self.activation(x * self.gain)

    def get_config(self):
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


def model_with(layer):
    inputs = keras.Input((6, 5, 3))
    x = layer(layers.Conv2D(4, 3)(inputs))
    return small_models.randomize(keras.Model(inputs, layers.Conv2D(2, 2)(x)))


def test_without_a_layout_a_layer_gets_what_keras_has(tmp_path):
    @emitter(Gain)
    def emit(e, layer, x):
        assert x.is_plain
        return e.op("Mul", x, e.weight("gain"))

    assert op_counts(assert_agrees(model_with(Gain()), tmp_path / "m.onnx"))["Transpose"] == 4


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
        lambda x: ops.matmul(ops.transpose(x, (0, 2, 1, 3)), x),
        lambda x: ops.einsum("bhwc,bhvc->bhwv", x, ops.transpose(x, (0, 2, 1, 3))),
        lambda x: ops.stack([ops.cumsum(x, axis=1), ops.cumsum(ops.transpose(x, (0, 3, 2, 1)), axis=1)]),
    ],
    ids=["gram", "left", "einsum", "cumsum"],
)
def test_a_tensor_and_its_transposition_are_arranged_apart(function, tmp_path):
    """All axes are of one size: were they taken for one another, the shapes would tell nothing."""
    inputs = keras.Input((6, 6, 3))
    model = small_models.randomize(keras.Model(inputs, function(layers.Conv2D(4, 3)(inputs))))
    assert_agrees(model, tmp_path / "m.onnx")


def test_an_elementwise_layer_takes_any_layout(tmp_path):
    @emitter(Gain, layout="any")
    def emit(e, layer, x):
        assert x.order == (0, 3, 1, 2)
        return e.activate(e.output(e.op("Mul", x, e.constant(layer.gain, x)), x))

    proto = assert_agrees(model_with(Gain("hard_swish")), tmp_path / "m.onnx")
    assert op_counts(proto)["Transpose"] == 2  # in and out


def test_a_layer_may_be_written_with_the_emitters_of_others(tmp_path):
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first, self.second = layers.Dense(6, activation="relu"), layers.Dense(4)

        def call(self, x):
            return self.second(self.first(x))

    @emitter(Block)
    def emit(e, layer, x):
        hidden = e.emit(layer.first, x, outputs=[keras.KerasTensor((*x.shape[:-1], 6))])
        return e.emit(layer.second, hidden, outputs=e.outputs)

    inputs = keras.Input((3,))
    model = small_models.randomize(keras.Model(inputs, Block(name="block")(inputs)))
    proto = assert_agrees(model, tmp_path / "m.onnx")
    assert [n.name for n in proto.graph.node] == ["block/Gemm", "block/Relu", "block/Gemm_1"]


def test_several_inputs_outputs_and_arguments(tmp_path):
    class SumAndDifference(layers.Layer):
        def call(self, x, other, factor=1.0, training=None):
            return x + factor * other, x - other

    @emitter(SumAndDifference, layout="any")
    def emit(e, layer, x, other, factor):
        return [e.op("Add", x, e.op("Mul", other, factor)), e.op("Sub", x, other)]

    a, b = keras.Input((3,)), keras.Input((3,))
    outputs = SumAndDifference()(a, other=b, factor=3.0)
    assert_agrees(keras.Model([a, b], list(outputs)), tmp_path / "m.onnx")


def test_an_activation_function_of_ones_own(tmp_path):
    def double(x):
        return 2 * x

    @emitter(double, layout="any")
    def emit(e, function, x):
        return e.op("Add", x, x)

    proto = assert_agrees(model_with(layers.Conv2D(4, 1, activation=double)), tmp_path / "m.onnx")
    assert op_counts(proto)["Transpose"] == 2


def test_what_an_emitter_refuses_is_reported_with_the_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")

    @emitter(Gain)
    def emit(e, layer, x):
        raise NotExpressibleError("has a gain")

    with pytest.raises(UnsupportedLayerError, match=r"loud \(Gain\): has a gain"):
        assert_agrees(model_with(Gain(name="loud")), tmp_path / "m.onnx")


def test_an_activation_function_of_operations(tmp_path):
    def scaled_gelu(x):
        return keras.activations.gelu(x, approximate=True) * 1.7 - ops.mean(x, axis=-1, keepdims=True)

    proto = assert_agrees(model_with(layers.Conv2D(4, 1, activation=scaled_gelu, name="conv")), tmp_path / "m.onnx")
    assert "conv/scaled_gelu/multiply/Mul" in [node.name for node in proto.graph.node]


def test_an_activation_function_that_keras_cannot_trace_is_reported_with_its_layer(tmp_path):
    def strange(x):
        return x if x[0, 0, 0, 0] > 0 else -x

    layer = layers.Conv2D(4, 1, name="conv")
    model = model_with(layer)
    layer.activation = strange
    with pytest.raises(UnsupportedLayerError, match=r"conv \(Conv2D\): uses strange, .*which Keras cannot trace"):
        export_onnx(model, tmp_path / "m.onnx")


@pytest.mark.usefixtures("own_wrappers")
def test_scales_along_an_axis_that_the_operator_cannot_have_are_refused(tmp_path):
    class DenseQuantizeWrapper(WeightedBaseQuantizeWrapper):
        channel_axis = 0

    inputs = keras.Input((3,))
    model = keras.Model(inputs, DenseQuantizeWrapper(layers.Dense(4, name="dense"))(inputs))
    with pytest.raises(UnsupportedLayerError, match=r"quant_dense .*scales for kernel that vary along an axis"):
        assert_agrees(model, tmp_path / "m.onnx")


@pytest.mark.usefixtures("own_wrappers")
@pytest.mark.filterwarnings("ignore:.*never saw data")
def test_a_layer_of_ones_own_with_a_quantized_weight(tmp_path):
    class GainQuantizeWrapper(WeightedBaseQuantizeWrapper):
        def __init__(self, layer, **kwargs):
            super().__init__(layer, kernel_type="gain", **kwargs)

    @emitter(Gain)
    def emit(e, layer, x):
        return e.op("Mul", x, e.weight("gain", axis=0))

    inputs = keras.Input((3,))
    scheme = QuantizationScheme(bits=5)
    model = keras.Model(inputs, GainQuantizeWrapper(Gain(), weight_scheme=scheme)(inputs))
    proto = assert_agrees(small_models.randomize(model), tmp_path / "m.onnx", [np.ones((2, 3), "float32")])
    assert op_counts(proto)["DequantizeLinear"] == 2


def test_a_value_describes_itself():
    value = Value(None, (None, 6, 5, 3), "bfloat16", (0, 3, 1, 2))
    assert value.dtype == "float32"
    assert value.stored_shape == (None, 3, 6, 5)
    assert [value.position(a) for a in (0, 1, 2, 3, -1)] == [0, 2, 3, 1, 1]
    assert not value.is_plain
    assert Value(None, (2, 3)).is_plain
