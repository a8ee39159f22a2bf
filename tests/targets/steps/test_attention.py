from functools import partial

import pytest
from drafts import SEQUENCE, call_of, draft_of, rules
from keras import layers

from tensorflow_quantization.model.op_traits import Trait
from tensorflow_quantization.targets.steps.attention import place_inner_matmuls, place_projections
from tensorflow_quantization.targets.steps.kernels import place_kernels

RULES = rules(matmuls=Trait.ATTENDS)
ADDITIVE = {"concat": partial(layers.Attention, score_mode="concat"), "additive": layers.AdditiveAttention}


def test_attention_with_projections_has_weights_and_matmuls_quantized():
    draft = draft_of(lambda x: layers.MultiHeadAttention(2, 4, name="attention")(x, x), RULES, SEQUENCE)
    place_inner_matmuls(draft, call_of(draft, "attention"))
    placement = draft.placements["attention"]
    assert placement.inner_matmuls
    assert placement.weights


def test_attention_without_projections_has_no_weights():
    draft = draft_of(lambda x: layers.Attention(name="attention")([x, x]), RULES, SEQUENCE)
    place_inner_matmuls(draft, call_of(draft, "attention"))
    assert draft.placements["attention"].inner_matmuls
    assert not draft.placements["attention"].weights


def test_projections_alone_are_quantized_where_a_runtime_multiplies_floats():
    draft = draft_of(
        lambda x: layers.MultiHeadAttention(2, 4, name="attention")(x, x), rules(projections=True), SEQUENCE
    )
    place_projections(draft, call_of(draft, "attention"))
    placement = draft.placements["attention"]
    assert placement.projections and placement.weights and not placement.inner_matmuls


@pytest.mark.parametrize("name", ADDITIVE)
def test_attention_that_adds_multiplies_its_values_alone(name):
    def attend(x):
        query, value, key = (layers.ReLU(name=name)(x) for name in ("query", "value", "key"))
        return ADDITIVE[name](name="attention")([query, value, key])

    draft = draft_of(attend, RULES, SEQUENCE)
    place_kernels(draft)
    assert draft.placements["attention"].inner_matmuls
    assert draft.placements["value"].output
    assert draft.placements.keys() == {"attention", "value"}


@pytest.mark.parametrize("name", ADDITIVE)
def test_what_is_only_added_keeps_its_floats(name):
    def attend(x):
        query, value, key = (layers.Dense(8, name=name)(x) for name in ("query", "value", "key"))
        total = layers.Add(name="sum")([x, query])
        return ADDITIVE[name](name="attention")([total, value, layers.Permute((1, 2))(key)])

    given = rules(matmuls=Trait.ATTENDS, quantized_outputs=True, float_matmul_outputs=True, float_residuals=True)
    draft = draft_of(attend, given, SEQUENCE)
    place_kernels(draft)
    placed = draft.placements
    assert [name for name in ("query", "value", "key", "sum") if name in placed and placed[name].output] == ["value"]
