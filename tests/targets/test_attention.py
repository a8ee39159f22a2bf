"""Transformers for each target: small vision transformers, and attention in all the ways that Keras has to write it."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import randomize

from tensorflow_quantization import (
    QuantizationSpec,
    calibrate,
    check_onnx,
    describe,
    export_litert,
    export_onnx,
    quantize_model,
    runtime_report,
)
from tensorflow_quantization.quantize.pipeline import plan_model

STEPS, SIZE, HEADS = 9, 16, 2
RUNTIMES = ["onnxruntime", "openvino"]


@keras.saving.register_keras_serializable("tests")
class Positions(layers.Layer):
    """Adds a learned vector to each step, behind a learned step if `token`."""

    def __init__(self, token=False, **kwargs):
        super().__init__(**kwargs)
        self.token = token

    def build(self, shape):
        self.table = self.add_weight(shape=(1, shape[1] + self.token, shape[2]), initializer="random_normal")
        if self.token:
            self.first = self.add_weight(shape=(1, 1, shape[2]), initializer="random_normal")

    def call(self, x):
        if self.token:
            first = ops.broadcast_to(self.first, (ops.shape(x)[0], 1, x.shape[2]))
            x = ops.concatenate([first, x], axis=1)
        return x + self.table

    def get_config(self):
        return {**super().get_config(), "token": self.token}


def multi_head(x):
    return layers.MultiHeadAttention(HEADS, SIZE // HEADS)(x, x)


def grouped_query(x):
    return layers.GroupQueryAttention(SIZE // HEADS, HEADS, 1)(x, x)


def by_einsum(x):
    """The way of KerasHub."""
    query, key, value = (layers.EinsumDense("btc,chd->bthd", (None, HEADS, 8), bias_axes="hd")(x) for _ in range(3))
    scores = ops.einsum("aecd,abcd->acbe", key, query / 8**0.5)
    seen = ops.einsum("acbe,aecd->abcd", layers.Softmax()(scores), value)
    return layers.EinsumDense("bthd,hdc->btc", (None, SIZE), bias_axes="c")(seen)


def _matmul(query, key, value):
    weights = ops.softmax(ops.matmul(query, ops.swapaxes(key, -1, -2)) / 8**0.5)
    seen = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
    return layers.Dense(SIZE)(ops.reshape(seen, (-1, STEPS, SIZE)))


def by_matmul(x):
    together = ops.reshape(layers.Dense(3 * SIZE)(x), (-1, STEPS, 3, HEADS, 8))
    together = ops.transpose(together, (2, 0, 3, 1, 4))
    return _matmul(together[0], together[1], together[2])


def by_splitting(x):
    parts = ops.split(layers.Dense(3 * SIZE)(x), 3, axis=-1)
    return _matmul(*(ops.transpose(ops.reshape(y, (-1, STEPS, HEADS, 8)), (0, 2, 1, 3)) for y in parts))


def by_dot(x):
    query, key, value = (layers.Dense(SIZE)(x) for _ in range(3))
    scores = layers.Dot((2, 2))([query, key])
    return layers.Dense(SIZE)(layers.Dot((2, 1))([layers.Softmax()(scores * 0.25), value]))


def plain(x):
    query, key, value = (layers.Dense(SIZE)(x) for _ in range(3))
    return layers.Dense(SIZE)(layers.Attention(use_scale=True)([query, value, key]))


def additive(x):
    query, key, value = (layers.Dense(SIZE)(x) for _ in range(3))
    return layers.Dense(SIZE)(layers.AdditiveAttention()([query, value, key]))


ATTENTIONS = [multi_head, grouped_query, by_einsum, by_matmul, by_splitting, by_dot, plain, additive]


def block(x, attention=multi_head):
    x = layers.Add()([x, attention(layers.LayerNormalization()(x))])
    y = layers.Dense(2 * SIZE, activation="gelu")(layers.LayerNormalization()(x))
    return layers.Add()([x, layers.Dense(SIZE)(y)])


def transformer(attention):
    inputs = keras.Input((STEPS, SIZE), name="sequence")
    x = layers.LayerNormalization()(block(inputs, attention))
    return randomize(keras.Model(inputs, layers.Dense(5, name="head")(layers.GlobalAveragePooling1D()(x))))


def vision_transformer(token=False, batch_size=None):
    inputs = keras.Input((32, 32, 3), batch_size=batch_size, name="image")
    x = layers.Conv2D(SIZE, 8, strides=8, name="patches")(inputs)
    x = Positions(token)(layers.Reshape((-1, SIZE))(x))
    for _ in range(2):
        x = block(x)
    x = layers.LayerNormalization()(x)
    x = x[:, 0] if token else layers.GlobalAveragePooling1D()(x)
    return randomize(keras.Model(inputs, layers.Dense(10, name="head")(x)))


def data(model, count=8):
    shape = model.inputs[0].shape
    return np.random.default_rng(0).normal(size=(count, *shape[1:])).astype("float32")


def quantized(model, target, **arguments):
    batch_size = model.inputs[0].shape[0]
    return calibrate(quantize_model(model, target=target, **arguments), data(model), batch_size=batch_size, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "arguments"),
    [*((target, {"token": True}) for target in RUNTIMES), ("onnxruntime", {}), ("openvino", {"batch_size": 1})],
    ids=str,
)
def test_vision_transformer_runs_in_integers(tmp_path, target, arguments):
    model = vision_transformer(**arguments)
    q_model = quantized(model, target)
    path = export_onnx(q_model, tmp_path / "m.onnx", verify_with=data(model, arguments.get("batch_size", 2)))
    report = runtime_report(path, runtime=target)
    assert report.integer_share == 1.0, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("target", RUNTIMES)
@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda attention: attention.__name__)
def test_every_way_to_write_attention_runs_in_integers(tmp_path, target, attention):
    model = transformer(attention)
    path = export_onnx(quantized(model, target), tmp_path / "m.onnx", verify_with=data(model, 2))
    report = runtime_report(path, runtime=target)
    assert report.integer_share == 1.0, str(report)


@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda attention: attention.__name__)
def test_files_for_tensorrt_have_no_findings(tmp_path, attention):
    model = transformer(attention)
    path = export_onnx(quantized(model, "tensorrt"), tmp_path / "m.onnx", verify_with=data(model, 2))
    report = check_onnx(path, target="tensorrt")
    assert report.ok, str(report)
    assert not [finding for finding in report if finding.keeps_float], str(report)


@pytest.mark.slow
@pytest.mark.parametrize("target", [*RUNTIMES, "tensorrt"])
def test_vision_transformer_gives_nearly_what_the_float_one_does(target):
    model = vision_transformer()
    x = data(model)
    found, expected = (m.predict(x, verbose=0).ravel() for m in (quantized(model, target), model))
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.995


@pytest.mark.parametrize("target", [*RUNTIMES, "tensorrt"])
def test_saved_transformer_exports_the_same_file(tmp_path, target):
    q_model = quantized(transformer(by_einsum), target)
    q_model.save(tmp_path / "m.keras")
    export_onnx(q_model, tmp_path / "before.onnx")
    export_onnx(keras.models.load_model(tmp_path / "m.keras"), tmp_path / "after.onnx")
    assert (tmp_path / "before.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()


@pytest.mark.slow
def test_vision_transformer_trains():
    model = quantize_model(vision_transformer(), target="onnxruntime")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(data(model, 32), np.arange(32) % 10, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


# Where the quantizers are


@pytest.mark.parametrize("target", [*RUNTIMES, "tensorrt"])
def test_residual_sums_of_a_transformer_stay_in_floats(target):
    plan = plan_model(vision_transformer(), target=target)
    sums = [layer for layer in plan if layer.class_name == "Add"]
    assert len(sums) == 4
    assert not any(layer.quantized for layer in sums)
    assert all("stays in float" in layer.reason.text for layer in sums)


@pytest.mark.parametrize("target", [*RUNTIMES, "tensorrt"])
def test_a_sum_that_an_integer_kernel_reads_does_not(target):
    inputs = keras.Input((STEPS, SIZE))
    x = layers.Dense(SIZE, name="first")(inputs)
    x = layers.Add(name="sum")([x, layers.Dense(SIZE, name="second")(layers.LayerNormalization()(x))])
    plan = plan_model(keras.Model(inputs, layers.Dense(3)(x)), target=target)
    assert plan["sum"].quantized


def test_an_activation_in_floats_reads_floats_for_onnxruntime():
    """A matrix product gives them for nothing, where a convolution gives integers."""
    inputs = keras.Input((STEPS, SIZE))
    x = layers.Dense(SIZE, activation="gelu", name="gelu")(inputs)
    x = layers.Conv1D(SIZE, 1, activation="gelu", name="convolution")(x)
    plan = plan_model(keras.Model(inputs, layers.Dense(3)(x)), target="onnxruntime")
    assert not plan["gelu"].placement.pre_activation
    assert plan["convolution"].placement.pre_activation


def schemes(model):
    return {
        layer.name: {q.what: (q.dtype, q.zero_point) for q in layer.quantizers if q.zero_point is not None}
        for layer in describe(model)
    }


def test_factors_for_openvino_have_no_zero_point():
    found = schemes(quantized(transformer(multi_head), "openvino"))["quant_multi_head_attention"]
    assert {what: found[what] for what in ("query output", "key output", "value output", "probability")} == {
        "query output": ("int8", 0),
        "key output": ("int8", 0),
        "value output": ("int8", 0),
        "probability": ("uint8", 0),
    }
    assert found["output input"][0] == "uint8"


def test_so_do_those_of_operations():
    found = schemes(quantized(transformer(by_einsum), "openvino"))
    factors = ["quant_true_divide", "quant_einsum_dense_1", "quant_einsum_dense_2"]
    assert {found[name]["output"] for name in factors} == {("int8", 0)}
    assert found["quant_softmax"]["output"] == ("uint8", 0)  # never negative, and on the left


def test_what_is_a_factor_on_the_right_is_signed_even_if_never_negative():
    inputs = keras.Input((STEPS, SIZE))
    x = layers.ReLU(name="relu")(inputs)
    outputs = ops.matmul(x, ops.swapaxes(x, 1, 2))
    found = schemes(quantized(keras.Model(inputs, outputs), "openvino"))
    assert found["quant_relu"]["output"] == ("int8", 0)


def test_products_with_a_constant_are_left_alone():
    inputs = keras.Input((STEPS, SIZE))
    outputs = ops.matmul(inputs, np.ones((SIZE, 3), "float32"))
    for target in [*RUNTIMES, "tensorrt"]:
        assert not any(layer.quantized for layer in plan_model(keras.Model(inputs, outputs), target=target))


def test_operations_have_quantizers_of_their_own_for_tensorrt():
    inputs = keras.Input((STEPS, SIZE), name="sequence")
    outputs = ops.add(inputs, ops.matmul(ops.matmul(inputs, ops.swapaxes(inputs, 1, 2)), inputs))
    model = quantize_model(keras.Model(inputs, outputs), target="tensorrt")
    quantizers = [layer for layer in describe(model) if layer.quantized]
    assert [layer.name for layer in quantizers] == [
        "quant_matmul_input_0",
        "quant_matmul_input_1",
        "quant_matmul_1_input_0",
        "quant_matmul_1_input_1",
        "quant_add_input_0",  # whose tensor has integers for matmul
    ]
    readers = ["matmul", "matmul", "matmul_1", "matmul_1", "add"]
    assert [layer.reason for layer in quantizers] == [f"read by {reader}" for reader in readers]


def test_spec_switches_attention_off():
    spec = QuantizationSpec()
    spec.add("MultiHeadAttention", is_keras_class=True, quantize_input=False, quantize_weight=False)
    model = transformer(multi_head)
    for target in [*RUNTIMES, "tensorrt"]:
        plan = plan_model(model, quantization_spec=spec, target=target)
        assert not plan["multi_head_attention"].quantized


def test_a_layer_that_takes_several_tensors_gets_its_quantizer_behind_it():
    class Mix(layers.Layer):
        def build(self, *_):
            self.strength = self.add_weight(initializer="ones")  # without a weight, the code is quantized inside

        def call(self, first, second):
            return first * ops.sigmoid(self.strength * second)

    inputs = keras.Input((STEPS, SIZE))
    x = Mix(name="mix")(inputs, layers.LayerNormalization()(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    q_model = quantize_model(model, target="onnxruntime")
    assert describe(q_model)["quant_mix"].class_name == "ActivationQuantizer"
    assert isinstance(q_model.get_layer("mix"), Mix)


def test_attention_that_returns_its_scores_quantizes_its_output_only(tmp_path):
    inputs = keras.Input((STEPS, SIZE))
    outputs, scores = layers.MultiHeadAttention(HEADS, 8)(inputs, inputs, return_attention_scores=True)
    model = randomize(keras.Model(inputs, [layers.Dense(3)(outputs), layers.Dense(3)(scores)]))
    q_model = quantized(model, "onnxruntime")
    assert q_model.get_layer("quant_multi_head_attention").output_quantizer.seen
    export_onnx(q_model, tmp_path / "m.onnx", verify_with=data(model, 2))


def test_one_of_several_outputs_is_left_in_floats():
    inputs = keras.Input((STEPS, SIZE))
    outputs, *states = layers.LSTM(4, return_state=True, name="lstm")(layers.Dense(4)(inputs))
    model = randomize(keras.Model(inputs, [layers.Dense(3)(outputs), *states]))
    q_model = quantized(model, "onnxruntime")
    assert {q.what for q in describe(q_model)["lstm"].quantizers} == {"cell.kernel", "cell.recurrent_kernel"}
    assert [y.shape for y in q_model(data(model))] == [y.shape for y in model(data(model))]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="export_litert needs TensorFlow")
@pytest.mark.parametrize(
    "attention", [multi_head, grouped_query, by_matmul, by_einsum], ids=lambda attention: attention.__name__
)
@pytest.mark.filterwarnings("ignore:.*compute in floats")
def test_attention_is_exported_to_litert(tmp_path, attention):
    model = transformer(attention)
    q_model = quantized(model, "litert")
    export_litert(q_model, tmp_path / "m.tflite", verify_with=data(model, 2))
    reasons = {layer.class_name: layer.reason for layer in describe(q_model)}
    if attention in (multi_head, grouped_query):
        reason = reasons.get("MultiHeadAttention", reasons.get("GroupedQueryAttention"))
        assert reason == "its projections are computed in integers, its products in float"
