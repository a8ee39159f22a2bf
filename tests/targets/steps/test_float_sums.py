from drafts import SEQUENCE, draft_of, rules
from keras import layers

from tensorflow_quantization.targets import ReasonCode
from tensorflow_quantization.targets.float_sums import find_float_sums
from tensorflow_quantization.targets.steps.float_sums import explain_float_sums

RULES = rules(float_residuals=True)


def sums(draft):
    found = find_float_sums(draft.graph, draft.rules.is_integer)
    return [call.path for call in draft.graph.calls if id(call) in found]


def test_sum_between_float_layers_stays_in_floats_and_says_why():
    def make(x):
        x = layers.Add(name="add")([x, layers.Dense(8)(x)])
        return layers.LayerNormalization()(x)

    draft = draft_of(make, RULES, SEQUENCE)
    assert sums(draft) == ["add"]
    explain_float_sums(draft)
    assert draft.placements["add"].reason.code is ReasonCode.NO_GAIN
    assert not draft.placements["add"]


def test_sum_that_an_integer_kernel_reads_is_none_of_them():
    draft = draft_of(lambda x: layers.Dense(3)(layers.Add(name="add")([x, layers.Dense(8)(x)])), RULES, SEQUENCE)
    assert sums(draft) == []


def test_sum_that_a_convolution_computes_along_is_none_of_them():
    draft = draft_of(lambda x: layers.Add(name="add")([x, layers.Conv2D(3, 3, padding="same")(x)]), RULES)
    assert sums(draft) == []


def test_sum_that_only_float_sums_read_is_one_of_them():
    def make(x):
        first = layers.Add(name="first")([x, layers.Dense(8)(x)])
        return layers.Add(name="second")([first, layers.LayerNormalization()(first)])

    assert sums(draft_of(make, RULES, SEQUENCE)) == ["first", "second"]
