"""Blocks that compute with weights of their own, and with constants, or that are called on several sizes."""

import keras
import numpy as np
import onnx
import pytest
from blocks_with_weights import IMAGES, Scaled, detector, transformer
from keras import layers, ops
from onnx_models import op_counts
from small_models import assert_same_arrays, randomize

from tensorflow_quantization import calibrate, describe, export_onnx, quantize_model
from tensorflow_quantization.model.own_weights import OwnWeight

#: What is quantized in each model.
INSIDE = [
    (transformer, {"embedding/quant_patches", "scaled/quant_dense"}),
    (detector, {"head/quant_conv", "head/quant_boxes"}),
]


def kinds_of_attributes(model):
    return [[type(value) for value in vars(layer).values()] for layer in model.layers]


def in_integers(quantized):
    return {layer.name for layer in describe(quantized).layers if layer.quantizers}


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "openvino"])
@pytest.mark.parametrize(("model", "inside"), INSIDE)
def test_the_layers_inside_are_quantized_and_the_file_is_right(tmp_path, model, inside, target):
    model = model()
    before = kinds_of_attributes(model)
    quantized = calibrate(quantize_model(model, target=target), IMAGES, verbose=0)
    assert kinds_of_attributes(model) == before
    assert inside <= in_integers(quantized)
    expected, y = model.predict(IMAGES, verbose=0), quantized.predict(IMAGES, verbose=0)
    assert np.mean((y - expected) ** 2) < 0.01 * np.mean(expected**2)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=IMAGES)


def test_a_file_loads_without_the_classes(tmp_path):
    quantized = calibrate(quantize_model(transformer()), IMAGES, verbose=0)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert_same_arrays(loaded.predict(IMAGES, verbose=0), quantized.predict(IMAGES, verbose=0))


def test_weights_train_with_their_regularizer_and_constants_do_not():
    model = transformer()
    quantized = calibrate(quantize_model(model), IMAGES, verbose=0)
    assert sum(map(float, quantized.losses)) == pytest.approx(sum(map(float, model.losses)), rel=1e-5)
    assert len(quantized.trainable_variables) == len(model.trainable_variables)
    own = {w.name: w for w in quantized._flatten_layers() if isinstance(w, OwnWeight)}
    before = {name: np.array(layer.value.numpy()) for name, layer in own.items()}
    quantized.trainable = False
    quantized.trainable = True
    quantized.compile("sgd", "mse")
    quantized.fit(IMAGES, np.ones((len(IMAGES), 5), "float32"), epochs=1, verbose=0)
    changed = {name for name, layer in own.items() if not np.array_equal(before[name], layer.value.numpy())}
    assert set(own) - changed == {"indices"}


def test_a_weight_of_a_subclassed_model_trains_in_the_copy_only():
    class Shifted(keras.Model):
        def build(self, shape):
            self.shift = self.add_weight(name="shift", shape=shape[1:])
            self.head = layers.Dense(2, name="head")
            self.head.build(shape)
            super().build(shape)

        def call(self, inputs):
            return self.head(inputs + self.shift)

    model = Shifted()
    model(np.zeros((2, 4), "float32"))
    quantized = quantize_model(model)
    (copy,) = [w for w in quantized.trainable_variables if w.path.startswith("shift")]
    assert_same_arrays(copy, model.shift)
    copy.assign(np.ones(4))
    assert np.ptp(ops.convert_to_numpy(model.shift))


def test_a_frozen_weight_stays_frozen():
    model = transformer()
    model.get_layer("scaled").scales[0].trainable = False
    quantized = quantize_model(model)
    assert len(quantized.trainable_variables) == len(model.trainable_variables)


def test_a_factor_goes_into_the_weights_and_is_not_quantized(tmp_path):
    quantized = calibrate(quantize_model(transformer(), target="openvino"), IMAGES, verbose=0)
    reasons = {layer.name: layer.code for layer in describe(quantized).layers}
    assert {reasons[f"scaled/{name}"] for name in ("scale0", "scale1", "before")} == {"own_weight"}
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=IMAGES)
    assert op_counts(onnx.load(tmp_path / "m.onnx"))["Mul"] == 1  # the one that multiplies no product


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras computes the first block in float32 there")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_mixed_precision(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = transformer()
    finally:
        keras.config.set_dtype_policy("float32")
    quantized = calibrate(quantize_model(model), IMAGES, verbose=0)
    assert "scaled/quant_dense" in in_integers(quantized)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=IMAGES)


def test_one_quantizer_serves_all_sizes():
    quantized = quantize_model(detector(), target="onnxruntime")
    assert sum(layer.name == "head/quant_conv" for layer in describe(quantized)) == 1


class Branching(Scaled):
    """Computes something else for small images, which no one graph can."""

    def call(self, inputs):
        x = self.dense(inputs)
        return x if inputs.shape[1] < 6 else x + inputs


def test_a_block_whose_code_depends_on_the_size_stays_in_float():
    inputs = keras.Input((8, 8))
    block = Branching(name="block")
    y = ops.concatenate([block(inputs), block(inputs[:, :4])], axis=1)
    quantized = quantize_model(randomize(keras.Model(inputs, layers.Dense(3)(y))))
    (found,) = [layer for layer in describe(quantized).layers if layer.name == "block"]
    assert found.reason == "its layers stay in float: it computes something else for other sizes"


def test_a_weight_that_a_matrix_product_reads_is_quantized(tmp_path):
    class Mixing(Scaled):
        def build(self, input_shape):
            super().build(input_shape)
            self.mixing = self.add_weight(name="mixing", shape=(8, 8))

        def call(self, inputs):
            return ops.matmul(self.dense(inputs), self.mixing)

    inputs = keras.Input((6, 8))
    model = randomize(keras.Model(inputs, layers.Dense(3)(Mixing(name="block")(inputs))))
    x = np.random.default_rng(0).normal(size=(32, 6, 8)).astype("float32")
    quantized = calibrate(quantize_model(model, target="onnxruntime"), x, verbose=0)
    assert "block/quant_mixing" in in_integers(quantized)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=x)


@keras.saving.register_keras_serializable("test_own_weights")
class Patches(layers.Layer):
    """The way of Keras' examples: a table of positions, looked up with what the code makes."""

    def __init__(self, count, units, **kwargs):
        super().__init__(**kwargs)
        self.count, self.units = count, units
        self.projection, self.table = layers.Dense(units, name="projection"), layers.Embedding(count, units)

    def call(self, patches, training=False):
        positions = ops.expand_dims(ops.arange(0, self.count, 1), axis=0)
        return self.projection(patches) + self.table(positions)

    def get_config(self):
        return {**super().get_config(), "count": self.count, "units": self.units}


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt", None])
def test_a_layer_called_on_what_the_code_makes_is_part_of_the_graph(tmp_path, target):
    x = np.random.default_rng(0).normal(size=(8, 6, 4)).astype("float32")
    inputs = keras.Input((6, 4))
    model = randomize(keras.Model(inputs, layers.Dense(2)(Patches(6, 3, name="patches")(inputs))))
    classes = [type(layer) for layer in model.get_layer("patches")._flatten_layers()]
    quantized = calibrate(quantize_model(model, target=target), x, verbose=0)
    assert [type(layer) for layer in model.get_layer("patches")._flatten_layers()] == classes
    assert "kernel" in str([str(q) for q in describe(quantized)["patches/quant_projection"].quantizers])
    expected = ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(ops.convert_to_numpy(quantized(x)), expected, atol=0.1 * np.abs(expected).max())
    quantized.compile("sgd", "mse")
    quantized.fit(x, np.zeros((8, 6, 2), "float32"), verbose=0)
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=x)
    quantized.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(m(x)) for m in (loaded, quantized)))
