import pytest
from drafts import draft_of, quantized, rules
from keras import layers

from tensorflow_quantization.targets.steps.pooling import place_pooled_convolutions


def pooled(x):
    x = layers.MaxPooling2D()(layers.Conv2D(4, 3, name="conv")(x))
    return layers.BatchNormalization(name="norm")(x)


@pytest.mark.parametrize("wanted", [True, False])
def test_convolution_that_a_float_normalization_reads_pooled_is_quantized(wanted):
    draft = draft_of(pooled, rules(quantized_pooling=wanted))
    place_pooled_convolutions(draft)
    assert quantized(draft) == (["conv"] if wanted else [])


def test_convolution_that_takes_its_normalization_up_is_not():
    def make(x):
        return layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(x))

    draft = draft_of(make, rules(quantized_pooling=True))
    place_pooled_convolutions(draft)
    assert draft.placements == {}


def test_normalization_that_is_switched_off_asks_for_nothing():
    draft = draft_of(pooled, rules(quantized_pooling=True), switched_off=["norm"])
    place_pooled_convolutions(draft)
    assert draft.placements == {}
