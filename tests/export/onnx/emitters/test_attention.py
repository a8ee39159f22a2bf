import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees, skip_unless_computable
from small_models import randomize


def attend(layer, *shapes, masks=None, path=None, **kwargs):
    """A model of an attention layer, and of masks given as inputs by the name of their argument."""
    inputs = [keras.Input(shape) for shape in shapes]
    given = {name: keras.Input(shape, dtype="int32", name=name) for name, shape in (masks or {}).items()}
    arguments = {name: keras.ops.cast(x, "bool") for name, x in given.items()}
    outputs = layer(*inputs, **arguments, **kwargs)
    model = randomize(keras.Model([*inputs, *given.values()], outputs))
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=(2, *(5 if d is None else d for d in s))).astype("float32") for s in shapes]
    for shape in (masks or {}).values():
        mask = rng.integers(0, 2, (2, *shape)).astype("int32")
        mask[..., 0] = 1
        arrays.append(mask)
    skip_unless_computable(model, arrays)  # JAX has no values of another size than the keys'
    return assert_agrees(model, path, arrays)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("masks", [None, {"attention_mask": (4, 5)}, {"value_mask": (5,), "key_mask": (5,)}])
def test_multi_head_attention(tmp_path, causal, scores, masks):
    layer = layers.MultiHeadAttention(2, 3, value_dim=4)
    shapes = [(4, 6), (5, 7)]
    options = {"use_causal_mask": causal, "return_attention_scores": scores}
    attend(layer, *shapes, masks=masks, path=tmp_path / "m.onnx", **options)


@pytest.mark.parametrize(
    "arguments",
    [
        {"use_bias": False},
        {"dropout": 0.1},
        {"output_shape": (3,)},
        {"output_shape": (2, 3)},
        {"use_gate": True},
        {"sliding_window": 2},
    ],
    ids=str,
)
def test_arguments_of_multi_head_attention(tmp_path, arguments):
    attend(layers.MultiHeadAttention(2, 3, **arguments), (4, 6), (5, 7), (5, 3), path=tmp_path / "m.onnx")


@pytest.mark.parametrize("axes", [None, (1,), (2,), (1, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_over_axes_of_an_image(tmp_path, axes, masked):
    layer = layers.MultiHeadAttention(2, 3, attention_axes=axes)
    sizes = {None: (3, 4, 3, 4), (1, 2): (3, 4, 3, 4), (1,): (4, 3, 3), (2,): (3, 4, 4)}
    masks = {"attention_mask": sizes[axes]} if masked else None
    if axes in ((1,), (2,)):
        masks = None
    attend(layer, (3, 4, 6), (3, 4, 6), masks=masks, path=tmp_path / "m.onnx")


@pytest.mark.parametrize("options", [{}, {"use_causal_mask": True}], ids=str)
def test_sequences_of_any_length(tmp_path, options):
    attend(layers.MultiHeadAttention(2, 3), (None, 6), (None, 6), path=tmp_path / "m.onnx", **options)
    attend(layers.MultiHeadAttention(2, 3, sliding_window=2), (None, 6), (None, 6), path=tmp_path / "m.onnx", **options)


@pytest.mark.parametrize("heads", [(4, 2), (2, 2), (4, 1)])
@pytest.mark.parametrize("options", [{}, {"use_causal_mask": True}, {"return_attention_scores": True}], ids=str)
@pytest.mark.parametrize("masks", [None, {"attention_mask": (4, 5)}, {"query_mask": (4,), "value_mask": (5,)}])
def test_grouped_query_attention(tmp_path, heads, options, masks):
    layer = layers.GroupQueryAttention(3, *heads)
    attend(layer, (4, 6), (5, 6), masks=masks, path=tmp_path / "m.onnx", **options)


@pytest.mark.parametrize("arguments", [{"use_gate": True}, {"sliding_window": 2}, {"dropout": 0.1}], ids=str)
def test_arguments_of_grouped_query_attention(tmp_path, arguments):
    attend(layers.GroupQueryAttention(3, 4, 2, **arguments), (4, 6), (5, 6), path=tmp_path / "m.onnx")


KINDS = [
    lambda: layers.Attention(),
    lambda: layers.Attention(use_scale=True),
    lambda: layers.Attention(score_mode="concat"),
    lambda: layers.Attention(score_mode="concat", use_scale=True),
    lambda: layers.AdditiveAttention(),
    lambda: layers.AdditiveAttention(use_scale=False),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masks", [(), ("query",), ("value",), ("query", "value")], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_attention(tmp_path, kind, masks, causal):
    inputs = [keras.Input(s) for s in [(4, 6), (5, 6), (5, 6)]]
    given = {"query": keras.Input((4,), dtype="int32"), "value": keras.Input((5,), dtype="int32")}
    mask = [keras.ops.cast(given[n], "bool") if n in masks else None for n in given] if masks else None
    outputs = kind()(inputs, mask=mask, use_causal_mask=causal, return_attention_scores=len(masks) == 1)
    model = randomize(keras.Model([*inputs, *(given[n] for n in masks)], outputs))
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(2, *x.shape[1:])).astype("float32") for x in inputs]
    arrays += [np.concatenate([np.ones((2, 1)), rng.integers(0, 2, (2, given[n].shape[1] - 1))], 1) for n in masks]
    assert_agrees(model, tmp_path / "m.onnx", arrays[:3] + [a.astype("int32") for a in arrays[3:]])
