"""Files of wrapped attention layers: the integers of Keras, and quantizers where the products are."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx_models import export, op_counts, run
from small_models import randomize

from tensorflow_quantization import calibrate
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.wrappers import find_wrapper

QUERY, VALUE = (4, 6), (5, 6)
AFFINE = QuantizationScheme(signed=False, symmetric=False, narrow_range=False)
SIGNED = QuantizationScheme(narrow_range=False)


def data(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(4, *shape)).astype("float32")


def attend(layer, *shapes, masks=None, call=None, **arguments):
    """A calibrated model of a wrapped attention layer, with masks by the names of its arguments, and its inputs."""
    wrapper = find_wrapper(layer)(layer, **arguments)
    inputs = [keras.Input(shape) for shape in shapes]
    given = {name: keras.Input(shape, dtype="int32", name=name) for name, shape in (masks or {}).items()}
    booleans = {name: keras.ops.cast(x, "bool") for name, x in given.items()}
    tensors = [inputs] if isinstance(layer, layers.Attention) else inputs
    model = randomize(keras.Model([*inputs, *given.values()], wrapper(*tensors, **booleans, **(call or {}))))
    arrays = [data(shape, seed) for seed, shape in enumerate(shapes)]
    for shape in (masks or {}).values():
        mask = np.random.default_rng(2).integers(0, 2, (4, *shape)).astype("int32")
        mask[..., 0] = 1
        arrays.append(mask)
    return calibrate(model, arrays, verbose=0), arrays


def sources(proto, node):
    """What makes the inputs of a node, looking through what only moves values."""
    producers = {output: n for n in proto.graph.node for output in n.output}
    found = []
    for name in node.input:
        while name in producers and producers[name].op_type in ("Transpose", "Reshape", "Gather"):
            name = producers[name].input[0]
        found.append(producers[name].op_type if name in producers else "input")
    return found


LAYERS = {
    "multi-head": lambda **kwargs: layers.MultiHeadAttention(2, 3, value_dim=4, **kwargs),
    "grouped queries": lambda **kwargs: layers.GroupQueryAttention(3, 4, 2, **kwargs),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("schemes", [{}, {"input_scheme": AFFINE}, {"input_scheme": AFFINE, "factor_scheme": SIGNED}])
@pytest.mark.parametrize("masks", [None, {"attention_mask": (4, 5)}, {"value_mask": (5,), "key_mask": (5,)}])
@pytest.mark.parametrize("causal", [False, True])
def test_integers_are_those_of_keras(tmp_path, name, schemes, masks, causal):
    call = {"use_causal_mask": causal}
    model, arrays = attend(LAYERS[name](), QUERY, VALUE, masks=masks, call=call, **schemes)
    proto = export(model, tmp_path / "m.onnx", verify_with=arrays)
    products = [n for n in proto.graph.node if n.op_type == "MatMul"]
    assert len(products) == 6
    assert all(sources(proto, n) == ["DequantizeLinear"] * 2 for n in products)
    found = run(tmp_path / "m.onnx", arrays, optimize=False)[0]
    # A value on the edge between two integers may go either way.
    assert np.abs(found - model.predict(arrays, verbose=0)).max() < 0.1


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{"use_gate": True}, {"sliding_window": 2}, {"dropout": 0.1}, {"use_bias": False}])
def test_arguments_of_the_layer(tmp_path, name, options):
    model, arrays = attend(LAYERS[name](**options), QUERY, VALUE, VALUE)
    export(model, tmp_path / "m.onnx", verify_with=arrays)


@pytest.mark.parametrize("masks", [None, {"attention_mask": (4, 5)}])
def test_scores_come_from_the_softmax_itself(tmp_path, masks):
    call = {"return_attention_scores": True}
    scheme = QuantizationScheme()
    model, arrays = attend(LAYERS["multi-head"](), QUERY, VALUE, masks=masks, call=call, output_scheme=scheme)
    proto = export(model, tmp_path / "m.onnx", verify_with=arrays)
    outputs, scores = (next(n for n in proto.graph.node if o.name in n.output) for o in proto.graph.output)
    assert outputs.op_type == "DequantizeLinear"
    assert scores.op_type == ("Softmax" if masks is None else "Where")


@pytest.mark.parametrize("axes", [None, (1,), (1, 2)])
def test_attention_over_axes_of_an_image(tmp_path, axes):
    model, arrays = attend(layers.MultiHeadAttention(2, 3, attention_axes=axes), (3, 4, 6), (3, 4, 6))
    proto = export(model, tmp_path / "m.onnx", verify_with=arrays)
    assert op_counts(proto)["Einsum"] == 2


@pytest.mark.parametrize("causal", [False, True])
def test_attention_without_projections(tmp_path, causal):
    model, arrays = attend(layers.Attention(use_scale=True), QUERY, VALUE, VALUE, call={"use_causal_mask": causal})
    proto = export(model, tmp_path / "m.onnx", verify_with=arrays)
    products = [n for n in proto.graph.node if n.op_type == "MatMul"]
    assert [sources(proto, n) for n in products] == [["DequantizeLinear"] * 2] * 2


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "layer",
    [layers.AdditiveAttention, lambda: layers.Attention(score_mode="concat"), lambda: layers.AdditiveAttention(False)],
    ids=["additive", "concat", "without a scale"],
)
@pytest.mark.parametrize("shapes", [(QUERY, VALUE), (QUERY, VALUE, VALUE)], ids=["values are keys", "keys"])
def test_attention_with_additive_scores(tmp_path, shapes, layer, causal):
    call = {"use_causal_mask": causal}
    model, arrays = attend(layer(), *shapes, call=call, quantize_specific_input_indices=[1])
    proto = export(model, tmp_path / "m.onnx", verify_with=arrays)
    products = [n for n in proto.graph.node if n.op_type == "MatMul"]
    assert [sources(proto, n) for n in products] == [["DequantizeLinear"] * 2]


@pytest.mark.parametrize("name", [*LAYERS, "plain"])
def test_padding_masks_of_an_embedding(tmp_path, name):
    layer = layers.Attention() if name == "plain" else LAYERS[name]()
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(6, 6, mask_zero=True)(inputs)
    wrapper = find_wrapper(layer)(layer)
    y = wrapper([x, x]) if name == "plain" else wrapper(x, x)
    model = randomize(keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Add()([x, y]))))
    tokens = np.array([[3, 1, 2, 0, 0], [1, 4, 0, 0, 0], [5, 5, 5, 5, 5]], "int32")
    calibrate(model, tokens, verbose=0)
    export(model, tmp_path / "m.onnx", verify_with=tokens)


def test_kernels_have_a_scale_a_column(tmp_path):
    model, arrays = attend(LAYERS["multi-head"](), QUERY, VALUE)
    proto = export(model, tmp_path / "m.onnx", verify_with=arrays)
    kernels = [n for n in proto.graph.node if n.name.endswith("kernel/DequantizeLinear")]
    sizes = {i.name: list(i.dims) for i in proto.graph.initializer}
    assert len(kernels) == 4
    for node in kernels:
        weight, scale, _ = node.input
        assert sizes[scale] == [sizes[weight][1]]
        assert [onnx.helper.get_attribute_value(a) for a in node.attribute] == [1]


def test_float16(tmp_path):
    model, arrays = attend(LAYERS["multi-head"](), QUERY, VALUE, masks={"attention_mask": (4, 5)})
    export(model, tmp_path / "m.onnx", precision="float16", verify_with=arrays)
