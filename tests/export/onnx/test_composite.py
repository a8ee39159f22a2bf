import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops
from onnx_models import assert_agrees
from small_models import assert_same_arrays, randomize, values

from tensorflow_quantization import QuantizationSpec, quantize_model
from tensorflow_quantization.export import UnsupportedLayerError, export_onnx
from tensorflow_quantization.export.onnx import fallback
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.keras_internals import nodes_of, sublayers


class Block(layers.Layer):
    """Sublayers, a weight of its own and operations."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.dropout = layers.Dropout(0.5)

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], 4))
        self.gain = self.add_weight(name="gain", shape=(4,), initializer="ones")

    def call(self, inputs, training=None):
        x = self.norm(self.conv(inputs), training=training)
        return self.dropout(ops.relu(x), training=training) * self.gain


class Nested(layers.Layer):
    """A layer of composite layers, with two outputs, that calls one of them twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Block(name="block")
        self.head = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(3)])

    def build(self, input_shape):
        self.block.build(input_shape)
        self.head.build(input_shape)

    def call(self, inputs):
        x = self.block(inputs)
        x = self.block(x + inputs)
        return {"features": x, "class": self.head(x)}


class Upscale(layers.Layer):
    """Keras does not compute a transposed convolution of keras.ops in a functional model, but it does in a layer."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(3, 3, 5, input_shape[-1]))

    def call(self, inputs):
        return ops.conv_transpose(inputs, self.kernel, strides=2, padding="same", data_format="channels_last")


class Attention(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.query, self.key, self.out = layers.Dense(8), layers.Dense(8), layers.Dense(6)

    def build(self, input_shape):
        self.query.build(input_shape)
        self.key.build(input_shape)
        self.out.build(input_shape)

    def call(self, inputs, other):
        scores = ops.einsum("bid,bjd->bij", self.query(inputs), self.key(other))
        return self.out(ops.einsum("bij,bjd->bid", ops.softmax(scores / 8**0.5), other))


def _model(layer, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    return randomize(keras.Model(inputs, layer(*inputs)))


@pytest.mark.parametrize("layer", [Block, Nested, Upscale])
def test_a_layer_of_layers_and_operations(tmp_path, layer):
    assert_agrees(_model(layer(), (6, 6, 4)), tmp_path / "m.onnx")


def test_a_layer_of_two_tensors(tmp_path):
    assert_agrees(_model(Attention(), (5, 6), (7, 6)), tmp_path / "m.onnx")


def test_names_in_the_file_start_with_that_of_the_layer(tmp_path):
    proto = assert_agrees(_model(Block(name="mine"), (6, 6, 4)), tmp_path / "m.onnx")
    assert all(n.name.startswith("mine") for n in proto.graph.node if n.op_type != "Transpose")
    assert [y.name for y in proto.graph.output] == ["mine"]


def test_the_model_stays_as_it_was(tmp_path):
    model = _model(Nested(name="nested"), (6, 6, 4))
    before, nodes = values(model), [len(nodes_of(x)) for x in [model, *sublayers(model)]]
    export_onnx(model, tmp_path / "m.onnx")
    first = (tmp_path / "m.onnx").read_bytes()
    assert_same_arrays(values(model), before)
    assert [len(nodes_of(x)) for x in [model, *sublayers(model)]] == nodes
    assert not model.losses
    export_onnx(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == first


def test_layers_within_are_found_in_quantized_models_too(tmp_path):
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    model = quantize_model(randomize(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(Block()(x))))))
    data = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    model(data, training=True)
    export_onnx(model, tmp_path / "m.onnx", verify_with=data)


def test_a_wrapper_inside_a_layer(tmp_path):
    source = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="dense")])
    quantized = quantize_model(randomize(source))
    data = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    quantized(data, training=True)

    class Holder(layers.Layer):
        def __init__(self):
            super().__init__(name="holder")
            self.wrapper = quantized.layers[-1]
            self.built = True

        def call(self, inputs):
            return ops.tanh(self.wrapper(inputs))

    inputs = keras.Input((6,))
    model = keras.Model(inputs, Holder()(inputs))
    export_onnx(model, tmp_path / "m.onnx", verify_with=data)
    assert b"QuantizeLinear" in (tmp_path / "m.onnx").read_bytes()


@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
def test_a_quantized_layer_of_layers(tmp_path, target):
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.Add()([x, Block(name="block")(x)])
    spec = QuantizationSpec()
    spec.add("block", quantize_input=True, quantize_weight=False, quantize_output=True)
    model = randomize(keras.Model(inputs, layers.Conv2D(3, 1)(x)))
    quantized = quantize_model(model, quantization_spec=spec, target=target)
    data = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    quantized(data, training=True)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=data)
    names = [node.name for node in onnx.load(path).graph.node]
    assert any(name.startswith("quant_block/output_quantizer") for name in names)
    assert any(name.startswith("quant_block/block") for name in names)


class Noisy(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal((4,), seed=self.seed)


class Unrolled(layers.Layer):
    def call(self, inputs):
        return ops.sum(inputs, axis=-1) if inputs[0, 0] > 0 else inputs

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape[:-1])


def test_randomness_is_not_frozen_into_the_file(tmp_path):
    model = _model(Noisy(name="noisy"), (4,))
    with pytest.raises(UnsupportedLayerError, match=r"(?s)noisy \(Noisy\).*while it runs"):
        export_onnx(model, tmp_path / "m.onnx")


def test_what_keras_cannot_trace_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    model = _model(Unrolled(name="unrolled"), (4,))
    with pytest.raises(UnsupportedLayerError, match=r"(?s)unrolled \(Unrolled\).*cannot trace.*@emitter\(Unrolled\)"):
        export_onnx(model, tmp_path / "m.onnx")
    assert LayerGraph.trace(model).calls
