import keras
import numpy as np
import pytest
from keras import layers
from litert_files import quantized
from small_models import randomize

from tensorflow_quantization.export.litert import export_litert
from tensorflow_quantization.export.litert.file import operators

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
