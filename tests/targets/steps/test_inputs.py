import pytest
from drafts import SEQUENCE, call_of, draft_of, quantized, rules
from keras import layers, ops

from tensorflow_quantization.model.op_traits import Trait
from tensorflow_quantization.targets import MatmulOperand
from tensorflow_quantization.targets.steps.inputs import place_inputs


def conv(x, name, **options):
    return layers.Conv2D(3, 3, padding="same", name=name, **options)(x)


def test_input_is_quantized_where_its_values_are_computed():
    draft = draft_of(lambda x: conv(layers.MaxPooling2D()(conv(x, "first")), "second"), rules())
    place_inputs(draft, call_of(draft, "second"))
    assert quantized(draft) == ["first"]
    assert str(draft.placements["first"].reason) == "read by second"


def test_parts_of_a_concatenation_have_the_quantizer_of_the_whole():
    draft = draft_of(lambda x: layers.Concatenate(name="join")([conv(x, "a"), conv(x, "b")]), rules())
    place_inputs(draft, call_of(draft, "join"))
    assert quantized(draft) == []


@pytest.mark.parametrize("unrounded", [True, False])
def test_products_that_a_sum_is_added_to_are_not_rounded_before(unrounded):
    def make(x):
        return layers.Add(name="add")([conv(x, "shortcut", activation="relu"), conv(x, "conv")])

    draft = draft_of(make, rules(unrounded_sums=unrounded))
    place_inputs(draft, call_of(draft, "add"))
    assert quantized(draft) == (["shortcut"] if unrounded else ["shortcut", "conv"])


def test_left_operand_of_a_matmul_may_be_non_negative():
    def make(x):
        left = layers.Softmax(name="left")(layers.Dense(8)(x))
        return ops.matmul(left, layers.Permute((2, 1), name="right")(layers.Softmax(name="keys")(x)))

    draft = draft_of(make, rules(matmuls=Trait.MULTIPLIES_TENSORS), SEQUENCE)
    place_inputs(draft, draft.graph.calls[-1])
    assert draft.placements["left"].matmul_operand is MatmulOperand.NON_NEGATIVE
    assert draft.placements["keys"].matmul_operand is MatmulOperand.SIGNED


def test_what_a_runtime_computes_in_floats_says_so():
    def make(x):
        return layers.Dense(3, name="dense")(layers.LayerNormalization(name="norm")(x))

    draft = draft_of(make, rules(float_only={"LayerNormalization": "computed in float"}), SEQUENCE)
    place_inputs(draft, call_of(draft, "dense"))
    assert str(draft.placements["norm"].reason) == "read by dense; the layer itself is computed in float"
