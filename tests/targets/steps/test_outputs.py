import pytest
from drafts import SEQUENCE, call_of, draft_of, quantized, rules
from keras import layers

from tensorflow_quantization.model.activations import Activation
from tensorflow_quantization.model.fusion import KernelFusion
from tensorflow_quantization.targets.steps.outputs import place_output

RELU = KernelFusion(activations=frozenset({Activation.RELU}))


def placed(make, name="conv", **options):
    draft = draft_of(make, rules(fusion=RELU, **options))
    place_output(draft, call_of(draft, name))
    return draft


def conv(x, **options):
    return layers.Conv2D(4, 3, name="conv", **options)(x)


def test_output_is_quantized_after_what_the_kernel_computes_along():
    def make(x):
        return layers.ReLU(name="relu")(layers.BatchNormalization()(conv(x)))

    draft = placed(make, quantized_outputs=True)
    assert quantized(draft) == ["relu"]
    assert str(draft.placements["relu"].reason) == "written by the kernel of conv"


def test_output_stays_where_the_runtime_needs_no_quantizer():
    assert placed(conv).placements == {}


def test_activation_that_the_kernel_does_not_fuse_comes_after_the_quantizer():
    draft = placed(lambda x: conv(x, activation="tanh"), quantized_outputs=True)
    assert draft.placements["conv"].pre_activation
    assert not draft.placements["conv"].output


def test_activation_that_is_a_kernel_of_its_own_is_quantized_too():
    draft = placed(
        lambda x: conv(x, activation="tanh"),
        quantized_outputs=True,
        activations=frozenset({Activation.TANH}),
        fixed_ranges={Activation.TANH: (1 / 128, 0)},
    )
    assert draft.placements["conv"].pre_activation
    assert draft.placements["conv"].output
    assert draft.placements["conv"].fixed_output == (1 / 128, 0)


def test_gated_activation_of_a_layer_has_its_gate_quantized():
    draft = placed(lambda x: conv(x, activation="silu"), quantized_outputs=True, gated=frozenset({Activation.SILU}))
    assert draft.placements["conv"].gate


@pytest.mark.parametrize("read_by_integers", [True, False])
def test_matmul_writes_floats_where_no_integer_kernel_reads_them(read_by_integers):
    def make(x):
        x = layers.Dense(4, name="first")(x)
        return layers.Dense(4)(x) if read_by_integers else layers.LayerNormalization()(x)

    draft = draft_of(make, rules(quantized_outputs=True, float_matmul_outputs=True), SEQUENCE)
    place_output(draft, call_of(draft, "first"))
    assert quantized(draft) == (["first"] if read_by_integers else [])
