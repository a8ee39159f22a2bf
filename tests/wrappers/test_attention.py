"""The wrappers of attention layers: what they round, that nothing else changes, and that they are Keras citizens."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import assert_same_arrays, randomize

from tensorflow_quantization import QuantizationSpec, calibrate, describe, quantize_model
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme
from tensorflow_quantization.wrappers import find_wrapper, wrappers_in
from tensorflow_quantization.wrappers.attention import (
    AttentionQuantizeWrapper,
    GroupedQueryAttentionQuantizeWrapper,
    MultiHeadAttentionQuantizeWrapper,
)

SEQUENCE, OTHER = (5, 8), (6, 8)
AFFINE = QuantizationScheme(signed=False, symmetric=False, narrow_range=False)
#: Layers with projections.
PROJECTED = {
    "multi-head": lambda **kwargs: layers.MultiHeadAttention(2, 4, **kwargs),
    "multi-head, values of another size": lambda **kwargs: layers.MultiHeadAttention(2, 4, value_dim=3, **kwargs),
    "grouped queries": lambda **kwargs: layers.GroupQueryAttention(4, 4, 2, **kwargs),
}
if keras.backend.backend() == "jax":  # where Keras itself cannot compute it without dropout
    del PROJECTED["multi-head, values of another size"]
UNPROJECTED = {
    "dot": lambda: layers.Attention(use_scale=True),
    "concat": lambda: layers.Attention(use_scale=True, score_mode="concat"),
    "additive": layers.AdditiveAttention,
}
NOTHING = {"quantize_inputs": False, "quantize_weights": False, "quantize_products": False}


def data(shape, seed=0, count=3):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")


def skip_what_keras_lacks(name, options=(), scores=False):
    """The oldest Keras that is allowed has not all arguments yet, and traces one output of two."""
    grouped = name == "grouped queries"
    cls = layers.GroupQueryAttention if grouped else layers.MultiHeadAttention
    if missing := set(options) - set(inspect.signature(cls).parameters):
        pytest.skip(f"Keras {keras.__version__} has no {', '.join(missing)}")
    if grouped and scores and "compute_output_spec" not in vars(cls):
        pytest.skip(f"Keras {keras.__version__} traces no scores of grouped queries")


def wrapped(layer, *shapes, masks=None, call=None, **arguments):
    """A model of a wrapped attention layer with random weights, the wrapper, and the layer in it."""
    wrapper = find_wrapper(layer)(layer, **arguments)
    inputs = [keras.Input(shape) for shape in shapes]
    given = {name: keras.Input(shape, dtype="bool", name=name) for name, shape in (masks or {}).items()}
    separate = not isinstance(layer, layers.Attention)
    outputs = wrapper(*inputs, **given, **(call or {})) if separate else wrapper(inputs, **(call or {}))
    model = randomize(keras.Model([*inputs, *given.values()], outputs))
    return model, wrapper


def set_ranges(wrapper, low=-2.5, high=2.5):
    """Ranges as if data had given them: of probabilities from 0 to 1."""
    for quantizer in wrapper.activation_quantizers:
        quantizer.set_range(low, high)
    wrapper.probability_quantizer.set_range(0.0, 1.0)


def test_each_class_has_its_wrapper():
    assert find_wrapper(layers.MultiHeadAttention(2, 4)) is MultiHeadAttentionQuantizeWrapper
    assert find_wrapper(layers.GroupQueryAttention(4, 4, 2)) is GroupedQueryAttentionQuantizeWrapper
    for layer in UNPROJECTED.values():
        assert find_wrapper(layer()) is AttentionQuantizeWrapper


def test_a_subclass_is_wrapped_only_if_it_computes_the_same():
    class Renamed(layers.MultiHeadAttention):
        def get_config(self):
            return super().get_config()

    class Sparse(layers.MultiHeadAttention):
        def _compute_attention(self, query, key, value, *args, **kwargs):
            return super()._compute_attention(query, key, ops.relu(value), *args, **kwargs)

    class Scored(layers.AdditiveAttention):
        def _calculate_scores(self, query, key):
            return 2 * super()._calculate_scores(query, key)

    class MultiHeadAttention(layers.Layer):
        """Of a tutorial: the name is all that it has in common."""

    assert find_wrapper(Renamed(2, 4)) is MultiHeadAttentionQuantizeWrapper
    assert find_wrapper(Sparse(2, 4)) is None
    assert find_wrapper(Scored()) is None
    assert find_wrapper(MultiHeadAttention()) is None


# What a wrapper computes


def quantized_by_hand(wrapper, query, value):
    """What `MultiHeadAttention(2, 4)` gives for rounded tensors, in NumPy."""

    def rounded(x, limit, qmax=127):
        scale = limit / qmax
        return np.clip(np.rint(x / scale), -qmax, qmax) * scale

    def kernel(dense, axes):
        w = ops.convert_to_numpy(dense.kernel)
        scale = np.abs(w).max(axis=axes, keepdims=True) / 127
        return np.rint(w / scale) * scale, ops.convert_to_numpy(dense.bias)

    layer = wrapper.layer
    query, value = rounded(query, 2.5), rounded(value, 2.5)
    heads = []
    for dense, x in ((layer.query_dense, query), (layer.key_dense, value), (layer.value_dense, value)):
        w, b = kernel(dense, 0)
        heads.append(rounded(np.einsum("btc,chd->bthd", x, w) + b, 2.5))
    scores = np.einsum("bqhd,bkhd->bhqk", heads[0], heads[1]) / 2
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    seen = rounded(np.einsum("bhqk,bkhd->bqhd", rounded(probabilities, 1.0), heads[2]), 2.5)
    w, b = kernel(layer.output_dense, (0, 1))
    return np.einsum("bqhd,hdc->bqc", seen, w) + b


def test_inputs_kernels_factors_probabilities_and_context_are_rounded():
    model, wrapper = wrapped(layers.MultiHeadAttention(2, 4), SEQUENCE, OTHER)
    set_ranges(wrapper)
    query, value = data(SEQUENCE), data(OTHER, 1)
    found = model.predict([query, value], verbose=0)
    expected = quantized_by_hand(wrapper, query, value)
    # A value on the edge between two integers may go either way, and moves what follows by a quantum.
    assert np.mean(np.abs(found - expected) < 1e-4) > 0.9
    assert np.abs(found - expected).max() < 0.1
    assert np.abs(found - ops.convert_to_numpy(wrapper.layer(query, value))).max() > 1e-2


@pytest.mark.parametrize("name", PROJECTED)
@pytest.mark.parametrize("options", [{}, {"use_gate": True}, {"dropout": 0.5}, {"sliding_window": 2}], ids=str)
@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_with_nothing_quantized_it_is_the_layer(name, options, scores, causal):
    skip_what_keras_lacks(name, options, scores)
    call = {"use_causal_mask": causal, "return_attention_scores": scores}
    model, wrapper = wrapped(PROJECTED[name](**options), SEQUENCE, SEQUENCE, call=call, **NOTHING)
    x = [data(SEQUENCE), data(SEQUENCE, 1)]
    found, expected = (keras.tree.flatten(y) for y in (model(x), wrapper.layer(*x, **call)))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PROJECTED)
@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize(
    "masks", [{"attention_mask": (5, 6)}, {"value_mask": (6,)}, {"value_mask": (6,), "key_mask": (6,)}], ids=str
)
def test_masks_are_those_of_the_layer(name, scores, masks):
    skip_what_keras_lacks(name, scores=scores)
    call = {"return_attention_scores": scores}
    model, wrapper = wrapped(PROJECTED[name](), SEQUENCE, OTHER, masks=masks, call=call, **NOTHING)
    x = [data(SEQUENCE), data(OTHER, 1)]
    given = {n: np.random.default_rng(2).integers(0, 2, (3, *shape)).astype(bool) for n, shape in masks.items()}
    for mask in given.values():
        mask[..., 0] = True
    found = keras.tree.flatten(model([*x, *given.values()]))
    expected = keras.tree.flatten(wrapper.layer(*x, **given, **call))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PROJECTED)
def test_padding_masks_of_an_embedding_are_those_of_the_layer(name):
    tokens = np.array([[3, 1, 2, 0, 0], [1, 4, 0, 0, 0]])

    def model(wrap):
        inputs = keras.Input((5,), dtype="int32")
        x = layers.Embedding(6, 8, mask_zero=True)(inputs)
        layer = PROJECTED[name]()
        y = (find_wrapper(layer)(layer, **NOTHING) if wrap else layer)(x, x)
        # What masks remain on input and output, the sum and the average over steps tell.
        return randomize(keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Add()([x, y]))))

    found, expected = (m.predict(tokens, verbose=0) for m in (model(True), model(False)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_values_that_no_query_may_see_change_nothing():
    model, wrapper = wrapped(layers.MultiHeadAttention(2, 4), SEQUENCE, OTHER, masks={"value_mask": (6,)})
    set_ranges(wrapper)
    query, value, mask = data(SEQUENCE), data(OTHER, 1), np.ones((3, 6), bool)
    mask[:, 4:] = False
    other = value.copy()
    other[:, 4:] += 1
    assert_same_arrays(model([query, other, mask]), model([query, value, mask]))


def test_scores_that_are_asked_for_are_not_rounded():
    model, wrapper = wrapped(
        layers.MultiHeadAttention(2, 4),
        SEQUENCE,
        OTHER,
        call={"return_attention_scores": True},
        output_scheme=QuantizationScheme(),
    )
    set_ranges(wrapper)
    outputs, scores = (ops.convert_to_numpy(y) for y in model([data(SEQUENCE), data(OTHER, 1)]))
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)
    assert np.abs(scores * 127 - np.rint(scores * 127)).max() > 0.1
    scale = wrapper.output_quantizer.parameters()[0]
    np.testing.assert_allclose(outputs / scale, np.rint(outputs / scale), atol=1e-3)


def test_attention_without_projections_rounds_its_inputs_and_the_probabilities():
    model, wrapper = wrapped(layers.Attention(), SEQUENCE, OTHER, OTHER)
    set_ranges(wrapper)
    x = [data(SEQUENCE), data(OTHER, 1), data(OTHER, 2)]
    query, value, key = (np.clip(np.rint(a * (127 / 2.5)), -127, 127) * (2.5 / 127) for a in x)
    scores = np.einsum("bqc,bkc->bqk", query, key)
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("bqk,bkc->bqc", np.rint(probabilities * 127) / 127, value)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-2)


def test_additive_attention_rounds_its_values_and_the_probabilities():
    model, wrapper = wrapped(layers.AdditiveAttention(), SEQUENCE, OTHER, OTHER, quantize_specific_input_indices=[1])
    set_ranges(wrapper)
    query, value, key = x = [data(SEQUENCE), data(OTHER, 1), data(OTHER, 2)]
    value = np.clip(np.rint(value * (127 / 2.5)), -127, 127) * (2.5 / 127)
    scale = ops.convert_to_numpy(wrapper.layer.scale)
    scores = (scale * np.tanh(query[:, :, None] + key[:, None])).sum(-1)
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("bqk,bkc->bqc", np.rint(probabilities * 127) / 127, value)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-2)


@pytest.mark.parametrize("name", UNPROJECTED)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scores", [False, True])
def test_attention_without_projections_is_the_layer_if_nothing_is_quantized(name, causal, scores):
    call = {"use_causal_mask": causal, "return_attention_scores": scores}
    tokens = np.array([[3, 1, 2, 0, 0], [1, 4, 0, 0, 0]])

    def model(wrap):
        inputs = keras.Input((5,), dtype="int32")
        x = layers.Embedding(6, 8, mask_zero=True)(inputs)
        layer = UNPROJECTED[name]()
        layer = AttentionQuantizeWrapper(layer, **NOTHING) if wrap else layer
        return randomize(keras.Model(inputs, layer([x, x], **call)))

    found, expected = (keras.tree.flatten(m(tokens)) for m in (model(True), model(False)))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-4, atol=1e-5)


# Integers


def test_integers_of_each_tensor():
    factors = QuantizationScheme(narrow_range=False)
    _, wrapper = wrapped(
        layers.MultiHeadAttention(2, 4),
        SEQUENCE,
        OTHER,
        input_scheme=AFFINE,
        weight_scheme=QuantizationScheme(bits=5),
        factor_scheme=factors,
    )
    assert [q.scheme for q in wrapper.input_quantizers] == [AFFINE, AFFINE]
    assert list(wrapper.parts) == ["query", "key", "value", "output"]
    for name in ("query", "key", "value"):
        part = wrapper.parts[name]
        assert part.input_quantizers == [None]
        assert part.output_quantizer.scheme == factors
        assert part.weight_quantizers["kernel"].scheme == QuantizationScheme(bits=5, axis=(-2, -1))
    output = wrapper.parts["output"]
    assert [q.scheme for q in output.input_quantizers] == [AFFINE]
    assert output.weight_quantizers["kernel"].scheme == QuantizationScheme(bits=5, axis=(-1,))
    probability = wrapper.probability_quantizer
    assert (probability.scheme.signed, probability.scheme.symmetric, probability.scheme.qmax) == (False, True, 255)
    probability.set_range(0.001, 0.5)
    assert int(probability.parameters()[1]) == 0


def test_kernels_alone():
    _, wrapper = wrapped(
        layers.MultiHeadAttention(2, 4), SEQUENCE, OTHER, quantize_inputs=False, quantize_products=False
    )
    assert wrapper.activation_quantizers == []
    assert all(part.weight_quantizers for part in wrapper.parts.values())


def test_gate_has_a_quantized_kernel():
    model, wrapper = wrapped(layers.MultiHeadAttention(2, 4, use_gate=True), SEQUENCE, SEQUENCE)
    assert list(wrapper.parts) == ["query", "key", "value", "gate", "output"]
    assert wrapper.parts["gate"].weight_quantizers and not wrapper.parts["gate"].activation_quantizers
    assert np.isfinite(model.predict([data(SEQUENCE), data(SEQUENCE)], verbose=0)).all()


# A Keras citizen


def network(attention):
    """An attention layer between projections of a model, for tests of what `quantize_model` makes of it."""
    inputs = keras.Input(SEQUENCE, name="sequence")
    x = attention(layers.Dense(8, name="embedding")(inputs))
    return randomize(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))))


ATTENTIONS = {
    "multi-head": lambda x: layers.MultiHeadAttention(2, 4, name="attention")(x, x),
    "multi-head with keys": lambda x: layers.MultiHeadAttention(2, 4, name="attention")(x, value=x, key=x),
    "multi-head with dropout": lambda x: layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(x, x),
    "grouped queries": lambda x: layers.GroupQueryAttention(4, 4, 2, name="attention")(x, x),
    "plain": lambda x: layers.Attention(dropout=0.1, name="attention")([x, x]),
}


def quantized_by_name(name, **arguments):
    spec = QuantizationSpec()
    spec.add("attention")
    return quantize_model(network(ATTENTIONS[name]), "partial", spec, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ranges"), [*((name, "ema") for name in ATTENTIONS), ("multi-head", "learned")])
def test_trains_saves_and_loads(name, ranges, tmp_path):
    model = quantized_by_name(name, ranges=ranges)
    wrapper = model.get_layer("quant_attention")
    x, y = data(SEQUENCE, count=16), np.arange(16) % 3
    before = {w.path: ops.convert_to_numpy(w).copy() for w in model.trainable_weights}
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = model.fit(x, y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert all(quantizer.seen for quantizer in wrapper.activation_quantizers)
    still = [w.path for w in model.trainable_weights if np.array_equal(ops.convert_to_numpy(w), before[w.path])]
    # A softmax does not see what all its inputs have in common: what the bias of the keys adds.
    assert [path for path in still if not path.endswith("key/bias")] == []

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_arrays(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    config = loaded.get_layer("quant_attention").get_config()
    assert config | {"layer": None} == wrapper.get_config() | {"layer": None}
    loaded.fit(x, y, verbose=0)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_calibration_reaches_every_quantizer(name):
    model = calibrate(quantized_by_name(name), data(SEQUENCE, count=8), verbose=0)
    wrapper = model.get_layer("quant_attention")
    assert wrapper.activation_quantizers and wrapper.frozen
    assert all(quantizer.seen and quantizer.frozen for quantizer in wrapper.activation_quantizers)
    low, high = (float(v) for v in wrapper.probability_quantizer.range.numpy())
    assert 0 <= low < high <= 1


def test_every_quantizer_is_known_to_the_wrapper():
    wrapper = quantized_by_name("multi-head").get_layer("quant_attention")
    held = [layer for layer in sublayers(wrapper) if isinstance(layer, ActivationQuantizer)]
    assert {id(q) for q in held} == {id(q) for q in wrapper.activation_quantizers}
    assert {id(w) for w in wrappers_in(wrapper)} == {id(wrapper), *map(id, wrapper.parts.values())}


def test_losses_of_the_layer_count_once():
    def layer():
        return layers.MultiHeadAttention(2, 4, kernel_regularizer="l2", activity_regularizer="l1")

    _, wrapper = wrapped(layer(), SEQUENCE, SEQUENCE, **NOTHING)
    plain, x = layer(), data(SEQUENCE)
    plain.build(x.shape, x.shape)
    plain.set_weights(wrapper.layer.get_weights())
    plain(x, x)
    wrapper(x, x)
    found, expected = (sorted(float(ops.convert_to_numpy(loss)) for loss in w.losses) for w in (wrapper, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_dropout_drops_while_training_only():
    model, wrapper = wrapped(layers.MultiHeadAttention(2, 4, dropout=0.9), SEQUENCE, OTHER)
    set_ranges(wrapper)
    wrapper.frozen = True
    x = [data(SEQUENCE), data(OTHER, 1)]
    assert_same_arrays(model(x, training=False), model(x, training=False))
    assert np.abs(ops.convert_to_numpy(model(x, training=True)) - ops.convert_to_numpy(model(x))).max() > 0.01


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    model, wrapper = wrapped(layers.MultiHeadAttention(2, 4, dtype=policy), SEQUENCE, OTHER, masks={"value_mask": (6,)})
    mask = np.ones((3, 6), bool)
    mask[:, 3:] = False
    y = model([data(SEQUENCE), data(OTHER, 1), mask], training=True)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    assert np.isfinite(ops.convert_to_numpy(ops.cast(y, "float32"))).all()
    assert {keras.backend.standardize_dtype(v.dtype) for v in wrapper.variables} == {"float32"}


def test_description_names_the_parts():
    described = describe(quantized_by_name("multi-head"))["quant_attention"]
    what = [quantizer.what for quantizer in described.quantizers]
    assert what == [
        "input 0",
        "input 1",
        "query kernel",
        "query output",
        "key kernel",
        "key output",
        "value kernel",
        "value output",
        "output input",
        "output kernel",
        "probability",
    ]
    assert described.class_name == "MultiHeadAttention"


# What a spec asks


@pytest.mark.parametrize(
    ("entry", "inputs", "products", "weights"),
    [
        ({}, [True, True], True, True),
        ({"quantize_weight": False}, [True, True], True, False),
        ({"quantize_input": False}, [False, False], False, True),
        ({"quantization_index": 1}, [False, True], True, True),
    ],
    ids=str,
)
def test_entries_of_a_spec(entry, inputs, products, weights):
    spec = QuantizationSpec()
    spec.add("attention", **entry)
    wrapper = quantize_model(network(ATTENTIONS["multi-head"]), "partial", spec).get_layer("quant_attention")
    assert [quantizer is not None for quantizer in wrapper.input_quantizers] == inputs
    assert (wrapper.probability_quantizer is not None) == products
    assert bool(wrapper.parts["query"].weight_quantizers) == weights


def test_bits_of_an_entry_reach_everything_within():
    spec = QuantizationSpec()
    spec.add("attention", weight_bits=4, input_bits=6)
    wrapper = quantize_model(network(ATTENTIONS["multi-head"]), "partial", spec).get_layer("quant_attention")
    assert {quantizer.scheme.bits for quantizer in wrapper.activation_quantizers} == {6}
    assert {q.scheme.bits for part in wrapper.parts.values() for q in part.weight_quantizers.values()} == {4}


def test_index_is_that_of_the_layers_own_arguments():
    inputs = [keras.Input(SEQUENCE, name=name) for name in ("a", "b", "c")]
    # Keras lists tensors passed by name in the order of the alphabet.
    outputs = layers.MultiHeadAttention(2, 4, name="attention")(query=inputs[0], value=inputs[1], key=inputs[2])
    spec = QuantizationSpec()
    spec.add("attention", quantization_index=[0])
    model = quantize_model(randomize(keras.Model(inputs, outputs)), "partial", spec)
    calibrate(model, [3 * data(SEQUENCE), data(SEQUENCE), data(SEQUENCE)], verbose=0)
    query, value, key = model.get_layer("quant_attention").input_quantizers
    assert value is key is None
    assert float(query.range.numpy()[1]) > 4


def test_the_default_table_leaves_attention_alone():
    model = quantize_model(network(ATTENTIONS["multi-head"]))
    assert "name the layer or its class" in describe(model)["attention"].reason


def test_naming_a_layer_that_takes_several_tensors_and_has_no_wrapper_is_an_error():
    class Mix(layers.Layer):
        def call(self, first, second):
            return first + second

    spec = QuantizationSpec()
    spec.add("mix")
    model = network(lambda x: Mix(name="mix")(x, x))
    with pytest.raises(ValueError, match=r"'mix' \(Mix\) is named to be quantized, but takes first, second"):
        quantize_model(model, quantization_spec=spec)
    spec.add("mix", quantize_input=False)
    assert "switched off" in describe(quantize_model(model, quantization_spec=spec))["mix"].reason


def test_an_entry_of_additive_attention_quantizes_the_values_unless_it_has_an_index():
    inputs = [keras.Input(SEQUENCE), keras.Input(OTHER), keras.Input(OTHER)]
    model = keras.Model(inputs, layers.AdditiveAttention(name="attention")(inputs))
    for index, expected in ((None, [False, True, False]), ([0, 2], [True, False, True])):
        spec = QuantizationSpec()
        spec.add("attention", quantization_index=index)
        wrapper = quantize_model(model, quantization_mode="partial", quantization_spec=spec).get_layer(
            "quant_attention"
        )
        assert [quantizer is not None for quantizer in wrapper.input_quantizers] == expected
        assert wrapper.probability_quantizer is not None


def test_calls_with_and_without_a_key_are_refused_with_what_to_do():
    layer = layers.MultiHeadAttention(2, 4, name="shared")
    a, b = keras.Input((5, 8)), keras.Input((5, 8))
    model = keras.Model([a, b], [layer(a, b), layer(a, b, b)])
    x = np.zeros((2, 5, 8), "float32")
    quantized = quantize_model(model, target="openvino")
    with pytest.raises(
        ValueError, match=r"'shared' is called with [23] tensors, and was built with [23].*pass the key in all"
    ):
        calibrate(quantized, [x, x], verbose=0)


def test_products_that_are_quantized_have_the_projections_too():
    with pytest.raises(ValueError, match="quantize_projections=True is for quantize_products=False"):
        MultiHeadAttentionQuantizeWrapper(layers.MultiHeadAttention(2, 4), quantize_projections=True)
