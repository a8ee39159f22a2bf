from drafts import draft_of, quantized, rules
from keras import layers

from tensorflow_quantization.model.activations import Activation
from tensorflow_quantization.model.fusion import KernelFusion
from tensorflow_quantization.targets import Placement
from tensorflow_quantization.targets.steps.kernels import place_kernels

RELU = KernelFusion(activations=frozenset({Activation.RELU}))


def conv(x, name="conv"):
    return layers.Conv2D(4, 3, name=name)(x)


def placed(make, of_rules, **options):
    draft = draft_of(make, of_rules, **options)
    place_kernels(draft)
    return draft


def test_kernel_of_weights_has_them_and_its_input_quantized():
    draft = placed(conv, rules())
    assert draft.placements["conv"].weights
    assert not draft.placements["conv"].pointwise_input
    assert str(draft.placements["conv"].reason) == "computed in integers"
    assert quantized(draft) == [draft.graph.inputs[0].name]


def test_separable_convolution_has_the_input_of_its_pointwise_kernel_quantized():
    draft = placed(lambda x: layers.SeparableConv2D(4, 3, name="conv")(x), rules(("SeparableConv2D",)))
    assert draft.placements["conv"].pointwise_input


def test_kernel_that_is_switched_off_is_left_alone():
    assert placed(conv, rules(), switched_off=["conv"]).placements == {}


def test_activation_that_a_kernel_fuses_is_no_kernel_of_its_own():
    def make(x):
        return layers.ReLU(name="relu")(conv(x))

    alone = frozenset({Activation.RELU})
    fused = placed(make, rules(fusion=RELU, activations=alone, quantized_outputs=True))
    assert "conv" in fused.placements
    assert not fused.placements["conv"].output
    apart = placed(make, rules(activations=alone, quantized_outputs=True))
    assert apart.placements["conv"].output


def test_gated_activation_has_its_gate_quantized_with_what_the_runtime_fixes():
    of_rules = rules(gated=frozenset({Activation.SILU}), fixed_ranges={Activation.SIGMOID: (1 / 256, -128)})
    draft = placed(lambda x: layers.Activation("silu", name="silu")(x), of_rules)
    placement = draft.placements["silu"]
    assert placement.gate
    assert placement.output
    assert placement.fixed_gate == (1 / 256, -128)


def test_kernel_of_one_scale_has_its_own_quantizer_for_input_and_output():
    def make(x):
        return layers.AveragePooling2D(2, name="pool")(conv(x))

    pool = frozenset({"AveragePooling2D"})
    draft = placed(make, rules(unweighted=pool, same_scale=pool, quantized_outputs=True))
    placement = draft.placements["pool"]
    assert placement == Placement(inputs=(0,), output=True, same_scale=True, reason=placement.reason)
    assert not draft.placements["conv"].output
