from drafts import call_of, draft_of, quantized, rules
from keras import layers

from tensorflow_quantization.targets.draft import read_by
from tensorflow_quantization.targets.steps.rounding import place_rounding_kernels

RULES = rules(unweighted=("AveragePooling2D",), rounding=frozenset({"AveragePooling2D"}))


def averaged(x):
    return layers.AveragePooling2D(2, name="average")(layers.ReLU(name="relu")(x))


def test_average_that_no_quantizer_reads_stays_in_floats():
    draft = draft_of(averaged, RULES)
    place_rounding_kernels(draft)
    assert quantized(draft) == []
    assert str(draft.placements["average"].reason).startswith("stays in float")


def test_input_of_an_average_is_quantized_where_its_output_is():
    draft = draft_of(averaged, RULES)
    average = call_of(draft, "average")
    draft.quantize(average.outputs[0], read_by(average))
    place_rounding_kernels(draft)
    assert quantized(draft) == ["average", "relu"]


def test_average_that_is_concatenated_and_normalized_has_a_quantizer_for_both():
    def joined(x):
        y = averaged(x)
        return layers.Concatenate(name="concat")([layers.BatchNormalization(name="norm")(y), y])

    draft = draft_of(joined, RULES)
    draft.quantize(call_of(draft, "concat").outputs[0], read_by(call_of(draft, "concat")))
    place_rounding_kernels(draft)
    assert quantized(draft) == ["concat", "relu", "average"]


def test_output_of_an_average_is_quantized_where_its_input_is():
    draft = draft_of(averaged, RULES)
    average = call_of(draft, "average")
    draft.quantize(average.inputs[0], read_by(average))
    place_rounding_kernels(draft)
    assert quantized(draft) == ["relu", "average"]
