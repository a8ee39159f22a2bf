import keras
import numpy as np
import pytest
import small_models
from tfmot_configs import (
    CLASSES,
    DenseConfig,
    DenseOfMine,
    EmptyConfig,
    LastValueQuantizer,
    MovingAverageQuantizer,
    PerAxisConfig,
    dense_model,
    quantization,
    samples,
    train,
    wrapped,
)

from tensorflow_quantization import calibrate, describe
from tensorflow_quantization import quantize_model as quantize_with_a_target
from tensorflow_quantization.quantizers import ActivationQuantizer

annotate = quantization.quantize_annotate_layer
quantize_apply = quantization.quantize_apply
quantize_model = quantization.quantize_model


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


class ConvOfMine(keras.layers.Layer):
    """A custom layer that holds a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(2, 2)

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.built = True

    def call(self, inputs):
        return self.conv(inputs)


class ConvConfig(EmptyConfig):
    """Quantizes the kernel of the layer within."""

    def get_weights_and_quantizers(self, layer):
        return [(layer.conv.kernel, LastValueQuantizer(8, per_axis=False, symmetric=True, narrow_range=False))]


def functional(annotated=(1, 2), names=("conv", "hidden", "scores")):
    """Conv2D, Dense, Dense, with the layers of these indices annotated."""
    made = [
        keras.layers.Conv2D(3, 3, activation="relu", name=names[0]),
        keras.layers.Dense(4, activation="relu", name=names[1]),
        keras.layers.Dense(5, activation="softmax", name=names[2]),
    ]
    x = inputs = keras.Input((6, 6, 1), name="image")
    for index, layer in enumerate(made):
        x = (annotate(layer) if index in annotated else layer)(x)
    return keras.Model(inputs, x)


def sequential(annotated=(1, 2)):
    layers = functional(annotated).layers[1:]
    return keras.Sequential([keras.Input((6, 6, 1), name="image"), *layers])


def what_is_quantized(model):
    """For each layer of a quantized model with quantizers, what they quantize."""
    return {layer.name: [q.what for q in layer.quantizers] for layer in describe(model) if layer.quantizers}


def test_model_with_dropout_is_quantized():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(10, name="dense"), keras.layers.Dropout(0.4)])
    assert what_is_quantized(quantize_model(model))["quant_dense"] == ["kernel", "output"]


@pytest.mark.parametrize("function", [quantize_model, quantize_apply])
@pytest.mark.parametrize("wrong", [keras.layers.Dense(10), None, Subclassed()])
def test_only_a_sequential_or_functional_model_is_quantized(function, wrong):
    with pytest.raises(ValueError, match="must be a"):
        function(wrong)


def test_whole_model_is_quantized_as_for_litert():
    ours = quantize_with_a_target(small_models.residual(), target="litert")
    theirs = quantize_model(small_models.residual())
    assert str(describe(theirs)) == str(describe(ours))


@pytest.mark.parametrize("model", [sequential, functional])
def test_no_annotated_layer_is_an_error(model):
    with pytest.raises(ValueError, match="no annotated layer"):
        quantize_apply(model(annotated=()))


def test_model_that_is_not_built_is_an_error():
    with pytest.raises(ValueError, match="not built"):
        quantize_apply(keras.Sequential([annotate(keras.layers.Dense(10))]))


def test_custom_layer_without_config_is_an_error_that_names_it():
    model = keras.Sequential([keras.Input((2,)), annotate(DenseOfMine(3, name="mine"))])
    with pytest.raises(RuntimeError, match=r"'mine' \(DenseOfMine\) is not of Keras"):
        quantize_apply(model)


def test_layer_without_config_has_default_quantizers():
    quantized = quantize_apply(keras.Sequential([keras.Input((2,)), annotate(keras.layers.Dense(3, name="dense"))]))
    assert what_is_quantized(quantized)["quant_dense"] == ["kernel", "output"]
    assert [q.axis for q in describe(quantized)["dense"].quantizers] == [(-1,), None]


@pytest.mark.parametrize("layer_class", [keras.layers.Dense, DenseOfMine])
def test_config_of_the_user_counts(layer_class):
    annotated = keras.Sequential([keras.Input((2,)), annotate(layer_class(3, name="dense"), EmptyConfig())])
    (layer,) = wrapped(quantize_apply(annotated))
    assert isinstance(layer.quantize_config, EmptyConfig)
    assert not layer.weight_quantizers and layer.output_quantizer is None


@pytest.mark.parametrize("model", [sequential, functional])
def test_annotated_layers_are_quantized_with_copies_of_their_weights(model):
    annotated = model()
    quantized = quantize_apply(annotated)
    assert [layer.layer.name for layer in wrapped(quantized) if layer.weight_quantizers] == ["hidden", "scores"]
    for before, after in zip(annotated.layers[-2:], ("hidden", "scores"), strict=True):
        new = next(layer for layer in wrapped(quantized) if layer.layer.name == after)
        for old_weight, new_weight in zip(before.weights, new.layer.weights, strict=True):
            assert old_weight is not new_weight
            np.testing.assert_array_equal(old_weight.numpy(), new_weight.numpy())


@pytest.mark.parametrize("model", [sequential, functional])
def test_input_of_an_annotated_layer_is_quantized(model):
    found = what_is_quantized(quantize_apply(model(annotated=(2,))))
    before = {path: what for path, what in found.items() if "hidden" in path}
    assert before and all(what in (["output"], ["after it"]) for what in before.values())
    assert not any("conv" in path for path in found)


def test_quantized_model_is_built():
    assert quantize_apply(quantization.quantize_annotate_model(dense_model())).built


@pytest.mark.parametrize(("annotated", "quantized"), [((1, 2), False), ((0, 1, 2), True)])
def test_model_input_is_quantized_only_for_an_annotated_layer(annotated, quantized):
    model = quantize_apply(functional(annotated))
    assert ("quant_image" in [layer.name for layer in model.layers]) is quantized


def test_quantized_model_is_not_compiled():
    annotated = quantization.quantize_annotate_model(dense_model())
    annotated.compile("sgd", "mse")
    assert not quantize_apply(annotated).compiled


def test_nested_model_without_annotation_stays_float():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, name="inside")], name="inner")
    model = keras.Sequential([keras.Input((2,)), inner, annotate(keras.layers.Dense(3, name="outside"))])
    quantized = quantize_apply(model)
    assert not any(x.quantizers and x.name.endswith("inside") and "kernel" in str(x) for x in describe(quantized))
    assert "quant_outside" in what_is_quantized(quantized)


def test_order_of_trainable_weights_stays():
    model = keras.Sequential([keras.Input((6, 6, 3)), ConvOfMine(name="mine")])
    annotated = keras.models.clone_model(model, clone_function=lambda layer: annotate(layer, ConvConfig()))
    quantized = quantize_apply(annotated)
    assert list(wrapped(quantized)[0].weight_quantizers) == ["conv.kernel"]
    for old, new in zip(model.trainable_weights, quantized.trainable_weights, strict=True):
        assert old is not new
        np.testing.assert_array_equal(old.numpy(), new.numpy())


def test_model_that_only_moves_data_does_so_in_integers():
    model = keras.Sequential(
        [keras.Input((4, 6, 1), name="image"), keras.layers.ZeroPadding2D(), keras.layers.Flatten()]
    )
    assert what_is_quantized(quantize_model(model)) == {"quant_image": ["output"]}


@pytest.mark.parametrize("prefix", ["", "custom_", None])
def test_prefix_names_the_wrappers(prefix):
    x, _ = small_models.images()
    model = small_models.residual()
    quantized = quantize_model(model, quantized_layer_name_prefix=prefix)
    names = {layer.layer.name: layer.name for layer in wrapped(quantized)}
    assert names and all(name == f"{prefix or ''}{inner}" for inner, name in names.items())
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(x)) for m in (quantized, quantize_model(model))))
    assert [layer.reason for layer in describe(quantized)] == [
        layer.reason for layer in describe(quantize_model(model))
    ]


def test_scheme_sets_the_bits():
    scheme = quantization.experimental.default_n_bit.DefaultNBitQuantizeScheme(num_bits_weight=4, num_bits_activation=6)
    quantized = quantize_apply(quantization.quantize_annotate_model(dense_model()), scheme)
    assert {q.bits for layer in describe(quantized) for q in layer.quantizers} == {4, 6}


def test_scheme_of_tfmot_is_refused():
    class Scheme(quantization.QuantizeScheme):
        def get_quantize_registry(self):
            return None

    for wrong in (Scheme(), object()):
        with pytest.raises(ValueError, match="Default8BitQuantizeScheme"):
            quantize_apply(quantization.quantize_annotate_model(dense_model()), wrong)


def test_scheme_per_tensor_is_refused():
    with pytest.raises(ValueError, match="per_axis=False"):
        quantization.default_8bit.Default8BitQuantizeScheme(disable_per_axis=True)


def config_with(weights=(), activations=(), outputs=()):
    class Config(EmptyConfig):
        def get_weights_and_quantizers(self, layer):
            return [(layer.kernel, quantizer) for quantizer in weights]

        def get_activations_and_quantizers(self, layer):
            return [(layer.activation, quantizer) for quantizer in activations]

        def get_output_quantizers(self, layer):
            return list(outputs)

    return Config()


EIGHT = {"num_bits": 8, "per_axis": False, "symmetric": True, "narrow_range": False}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_with([LastValueQuantizer(**{**EIGHT, "num_bits": 16})]), "kernel of layer 'dense' .* num_bits=16"),
        (config_with([MovingAverageQuantizer(**EIGHT)]), "kernel of layer 'dense' .* Return a LastValueQuantizer"),
        (config_with((), [MovingAverageQuantizer(**{**EIGHT, "per_axis": True})]), "activation of layer 'dense'"),
        (config_with((), (), [None]), "QuantizeConfig of layer 'dense' returns None for the output"),
        (
            config_with((), [MovingAverageQuantizer(**EIGHT)], [LastValueQuantizer(**EIGHT)]),
            "layer 'dense' returns 2 quantizers for its output",
        ),
    ],
)
def test_what_a_config_cannot_have_names_the_layer(config, message):
    model = keras.Sequential([keras.Input((2,)), annotate(keras.layers.Dense(3, name="dense"), config)])
    with pytest.raises(ValueError, match=message):
        quantize_apply(model)


def test_weight_of_another_layer_names_the_layer():
    class Config(EmptyConfig):
        def get_weights_and_quantizers(self, layer):
            return [(keras.Variable(np.ones(2)), LastValueQuantizer(**EIGHT))]

    model = keras.Sequential([keras.Input((2,)), annotate(keras.layers.Dense(3, name="dense"), Config())])
    with pytest.raises(ValueError, match="'dense' returns a weight that the layer does not hold"):
        quantize_apply(model)


def test_saved_model_with_a_config_needs_its_class(tmp_path):
    x, _ = samples()
    annotated = keras.Sequential([keras.Input((10,)), annotate(keras.layers.Dense(3), PerAxisConfig())])
    quantized = quantize_apply(annotated)
    quantized.save(tmp_path / "model.keras")
    with quantization.quantize_scope(CLASSES):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(x)) for m in (loaded, quantized)))


def test_the_model_of_the_user_stays_as_it_is():
    model = dense_model()
    before = model.get_config(), [w.numpy() for w in model.weights]
    quantize_model(model)
    assert model.get_config() == before[0]
    assert all((a == w.numpy()).all() for a, w in zip(before[1], model.weights, strict=True))
    assert not any(isinstance(layer, ActivationQuantizer) for layer in model.layers)


def test_config_of_the_guide_is_used_once_for_each_layer():
    config = DenseConfig()
    model = keras.Sequential(
        [keras.Input((10,)), annotate(keras.layers.Dense(8), config), annotate(keras.layers.Dense(5), config)]
    )
    x, y = samples()
    train(quantize_apply(model), x, y)


def test_weights_are_saved_and_loaded(tmp_path):
    x, _ = samples()
    quantized = calibrate(quantize_model(dense_model()), x, verbose=0)
    quantized.save_weights(tmp_path / "model.weights.h5")
    other = quantize_model(dense_model())
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(x)) for m in (other, quantized)))
