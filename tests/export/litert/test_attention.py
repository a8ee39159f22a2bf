import keras
import numpy as np
import pytest
from keras import layers
from litert_files import quantized
from small_models import randomize

from tensorflow_quantization import QuantizationSpec, describe
from tensorflow_quantization.export import ExportError
from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.export.litert.file import operators
from tensorflow_quantization.export.verification.litert import verify_litert
from tensorflow_quantization.model.graph import LayerGraph

LAYERS = {
    "dot": lambda: layers.Attention(use_scale=True),
    "concat": lambda: layers.Attention(score_mode="concat"),
    "additive": layers.AdditiveAttention,
}


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_the_softmax_is_not_rounded(tmp_path, name, scores, causal):
    attention = LAYERS[name]()
    inputs = [keras.Input((6, 8)), keras.Input((9, 8))]
    query, value, key = (layers.Dense(8)(x) for x in (inputs[0], *2 * inputs[1:]))
    x = attention([query, value, key], use_causal_mask=causal, return_attention_scores=scores)
    model = randomize(keras.Model(inputs, [layers.Dense(4)(y) for y in (x if scores else [x])]))
    data = [np.random.default_rng(0).normal(size=(16, *x.shape[1:])).astype("float32") for x in inputs]
    model = quantized(model, data)
    export_litert(model, tmp_path / "m.tflite", verify_with=data)
    products = [floats for kind, _, floats in operators((tmp_path / "m.tflite").read_bytes()) if kind == "BATCH_MATMUL"]
    assert products and all(products)
    assert not any("_apply_scores" in vars(layer) for layer in model._flatten_layers())


PROJECTED = {
    "multi-head": lambda **k: layers.MultiHeadAttention(2, 4, **k),
    "other sizes": lambda **k: layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=6, use_bias=False, **k),
    "grouped": lambda **k: layers.GroupQueryAttention(4, 4, 2, **k),
    "gated": lambda **k: layers.GroupQueryAttention(4, 4, 2, use_gate=True, **k),
}
SELF, CROSS, KEYS = "self", "cross", "cross with keys"


def _normal(*shape, count=16):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")


def _model(layer, how=SELF, after=lambda x: x, **kwargs):
    """Attention on normalized tensors, with a residual sum."""
    inputs = [keras.Input((6, 8)), *([] if how == SELF else [keras.Input((5, 8))])]
    query = layers.LayerNormalization()(inputs[0])
    value = query if how == SELF else layers.Dense(8)(inputs[1])
    x = layer(query, value, **({"key": layers.Dense(8)(value)} if how == KEYS else {}), **kwargs)
    x, *scores = x if isinstance(x, tuple | list) else [x]
    x = layers.Add()([layers.Dense(8)(after(x)), inputs[0]])
    return randomize(keras.Model(inputs, [layers.Dense(3)(x), *scores]))


def _products(path, kind):
    return [floats for name, _, floats in operators(path.read_bytes()) if name == kind]


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("how", [SELF, CROSS, KEYS])
@pytest.mark.parametrize("name", PROJECTED)
def test_projections_compute_in_integers_and_products_in_floats(tmp_path, name, how):
    model = _model(PROJECTED[name](name="attention"), how)
    data = [_normal(*x.shape[1:]) for x in model.inputs]
    model = quantized(model, data)
    assert "projections are computed in integers" in describe(model)["attention"].reason
    path = export_litert(model, tmp_path / "m.tflite", verify_with=data)
    # The gate is a float product, too.
    assert _products(path, "BATCH_MATMUL") == [True] * (3 if name == "gated" else 2)
    assert _products(path, "FULLY_CONNECTED").count(False) == 4 + {SELF: 2, CROSS: 3, KEYS: 4}[how]
    # Only floats whose last bits decide, of the products, may have another integer: biases are rounded alike.
    agreement = verify_litert(path.read_bytes(), LayerGraph.trace(model).flatten(), data)
    assert max(one.unequal for one in agreement.tensors) < 2e-3


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("name", ["multi-head", "grouped"])
@pytest.mark.parametrize("arguments", [{"use_causal_mask": True}, {"return_attention_scores": True}], ids=str)
def test_arguments_of_a_call(tmp_path, name, arguments):
    model = _model(PROJECTED[name](), **arguments)
    export_litert(quantized(model, _normal(6, 8)), tmp_path / "m.tflite", verify_with=_normal(6, 8))


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_a_mask_as_an_input(tmp_path):
    inputs, mask = keras.Input((6, 8)), keras.Input((6, 6), dtype="bool")
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs, attention_mask=mask)
    model = randomize(keras.Model([inputs, mask], layers.Dense(3)(x)))
    data = [_normal(6, 8), np.random.default_rng(0).random((16, 6, 6)) > 0.5]
    export_litert(quantized(model, data), tmp_path / "m.tflite", verify_with=data)


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_masked_words(tmp_path):
    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(words)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    model = randomize(keras.Model(words, layers.Dense(3)(layers.GlobalAveragePooling1D()(x))))
    data = np.random.default_rng(0).integers(0, 9, size=(16, 6)).astype("int32")
    export_litert(quantized(model, data), tmp_path / "m.tflite", verify_with=data)


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
@pytest.mark.parametrize("bias", [True, False])
def test_what_scales_channels_is_folded_into_the_last_projection(tmp_path, bias):
    model = _model(layers.MultiHeadAttention(2, 4, use_bias=bias), after=layers.BatchNormalization())
    path = export_litert(quantized(model, _normal(6, 8)), tmp_path / "m.tflite", verify_with=_normal(6, 8))
    assert not _products(path, "DEPTHWISE_CONV_2D")


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_sixteen_bits(tmp_path):
    model = quantized(_model(layers.MultiHeadAttention(2, 4)), _normal(6, 8), activation_bits=16)
    path = export_litert(model, tmp_path / "m.tflite", verify_with=_normal(6, 8))
    assert not any(_products(path, "FULLY_CONNECTED"))


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_an_entry_leaves_weights_or_all_in_floats(tmp_path):
    for entry, integers in ({"quantize_weight": False}, 2), ({"quantize_weight": False, "quantize_input": False}, 2):
        spec = QuantizationSpec()
        spec.add("attention", **entry)
        model = _model(layers.MultiHeadAttention(2, 4, name="attention"))
        model = quantized(model, _normal(6, 8), quantization_spec=spec)
        path = export_litert(model, tmp_path / "m.tflite", verify_with=_normal(6, 8))
        assert _products(path, "FULLY_CONNECTED").count(False) == integers


@pytest.mark.filterwarnings("ignore:.*operators of the file compute in floats")
def test_it_trains_and_a_saved_model_is_the_same(tmp_path):
    model = quantized(_model(layers.MultiHeadAttention(2, 4, dropout=0.1)), _normal(6, 8))
    model.compile("adam", "mse")
    model.fit(_normal(6, 8), np.zeros((16, 6, 3), "float32"), verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert str(describe(loaded)) == str(describe(model))
    np.testing.assert_array_equal(loaded.predict(_normal(6, 8), verbose=0), model.predict(_normal(6, 8), verbose=0))
    export_litert(loaded, tmp_path / "m.tflite", verify_with=_normal(6, 8))


def test_products_that_are_quantized_for_another_runtime_are_refused(tmp_path):
    from dataclasses import replace

    from tensorflow_quantization import quantize_model
    from tensorflow_quantization.targets import find_target

    other = replace(find_target("openvino"), name="mine")
    model = quantize_model(_model(layers.MultiHeadAttention(2, 4, name="attention")), target=other)
    with pytest.raises(ExportError, match="'quant_attention' has quantized products of activations"):
        export_litert(model, tmp_path / "m.tflite")
