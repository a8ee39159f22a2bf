import keras
import pytest
from tfmot_configs import DenseOfMine, quantization

Registry = quantization.default_8bit.Default8BitQuantizeRegistry


def built(layer, shape):
    layer.build(shape)
    return layer


def test_layers_with_an_integer_kernel_are_supported():
    assert Registry().supports(keras.layers.Dense(10))
    assert Registry().supports(keras.layers.Conv2D(10, 2))


def test_custom_layers_are_not_supported():
    layer = DenseOfMine(2, name="mine")
    assert not Registry().supports(layer)
    with pytest.raises(ValueError, match="no integer kernel for layer 'mine'"):
        Registry().get_quantize_config(layer)


@pytest.mark.parametrize("disable_per_axis", [False, True])
def test_weights_are_per_axis_unless_that_is_disabled(disable_per_axis):
    layer = built(keras.layers.Conv2D(3, 2), (None, 4, 4, 1))
    config = Registry(disable_per_axis).get_quantize_config(layer)
    ((_, quantizer),) = config.get_weights_and_quantizers(layer)
    assert quantizer.per_axis is not disable_per_axis


def test_config_of_a_layer_with_weights():
    layer = built(keras.layers.Dense(2), (None, 3))
    config = Registry().get_quantize_config(layer)
    ((kernel, of_kernel),) = config.get_weights_and_quantizers(layer)
    ((activation, of_activation),) = config.get_activations_and_quantizers(layer)
    assert kernel is layer.kernel and activation is layer.activation
    assert (of_kernel.symmetric, of_activation.symmetric) == (True, False)
    config.set_quantize_activations(layer, [keras.activations.relu])
    assert layer.activation is keras.activations.relu
    assert config.get_output_quantizers(layer) == []


@pytest.mark.parametrize("layer", [keras.layers.ReLU(), keras.layers.Activation("relu"), keras.layers.Add()])
def test_config_of_a_layer_without_weights_quantizes_its_output(layer):
    config = Registry().get_quantize_config(layer)
    assert len(config.get_output_quantizers(layer)) == 1
    assert config.get_weights_and_quantizers(layer) == config.get_activations_and_quantizers(layer) == []
    config.quantize_output = False
    assert config.get_output_quantizers(layer) == []


def test_each_kernel_of_a_separable_convolution_has_a_quantizer():
    layer = built(keras.layers.SeparableConv2D(3, 2), (None, 4, 4, 2))
    assert len(Registry().get_quantize_config(layer).get_weights_and_quantizers(layer)) == 2


@pytest.mark.parametrize(
    ("module", "name", "hint"),
    [
        (quantization, "QuantizeRegistry", "QuantizeConfig"),
        (quantization, "graph_transformations", "LayerGraph"),
        (quantization, "collab_opts", "pruning"),
        (quantization.default_8bit, "default_8bit_transforms", "litert"),
        (quantization.experimental.default_n_bit, "DefaultNBitQuantizeRegistry", "Default8BitQuantizeRegistry"),
    ],
)
def test_a_missing_name_says_what_to_use(module, name, hint):
    with pytest.raises(AttributeError, match=hint):
        getattr(module, name)
    with pytest.raises(AttributeError, match=r"has no attribute 'unknown'\.$"):
        module.unknown


def test_an_unknown_name_gets_the_closest():
    with pytest.raises(AttributeError, match=r"has no attribute 'quantise_model'\. Did you mean 'quantize_model'"):
        quantization.quantise_model


def test_other_parts_of_tfmot_are_missing():
    import tensorflow_quantization.tfmot as tfmot

    with pytest.raises(AttributeError, match="pruning is not part"):
        tfmot.sparsity
