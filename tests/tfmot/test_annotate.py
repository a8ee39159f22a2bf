import keras
import numpy as np
import pytest
from small_models import assert_same_arrays
from tfmot_configs import CLASSES, DenseConfig, DenseOfMine, dense_model, quantization, samples

from tensorflow_quantization.tfmot.quantization.keras.annotate import QuantizeAnnotate

annotate_layer = quantization.quantize_annotate_layer
annotate_model = quantization.quantize_annotate_model


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


class Recording(keras.layers.Layer):
    """Remembers the flag `training` of its last call."""

    def call(self, inputs, training=None):
        self.training = training
        return inputs


def test_annotated_layer_computes_the_same():
    x, _ = samples()
    layer = keras.layers.Dense(4)
    expected = layer(x)
    assert_same_arrays(annotate_layer(layer)(x), expected)


def test_annotation_keeps_layer_and_config():
    layer, config = keras.layers.Dense(4), DenseConfig()
    annotation = annotate_layer(layer, config)
    assert annotation.layer is layer and annotation.quantize_config is config


@pytest.mark.parametrize("training", [True, False])
def test_training_reaches_the_layer(training):
    layer = Recording()
    annotate_layer(layer)(np.ones((1, 2), "float32"), training=training)
    assert layer.training is training


def test_first_layer_sets_the_input_shape():
    model = keras.Sequential([annotate_layer(keras.layers.Dense(10, input_shape=(5,))), keras.layers.Dropout(0.4)])
    assert model.built and model.input_shape == (None, 5)


def test_layer_with_two_inputs():
    layer = annotate_layer(keras.layers.Add())
    assert layer([np.ones((1, 2)), np.ones((1, 2))]).shape == (1, 2)


def test_a_model_is_no_layer():
    for wrong in (dense_model(), keras.layers.Dense, None):
        with pytest.raises(ValueError, match="quantize_annotate_model"):
            annotate_layer(wrong)


def test_config_of_another_class_is_refused():
    with pytest.raises(ValueError, match="'mine' must be a QuantizeConfig, got a object"):
        annotate_layer(keras.layers.Dense(1, name="mine"), object())


def test_config_of_the_annotation_is_restored():
    annotation = annotate_layer(keras.layers.Dense(3), DenseConfig())
    config = keras.layers.serialize(annotation)
    with quantization.quantize_scope(CLASSES):
        assert keras.layers.deserialize(config).get_config() == annotation.get_config()


def test_every_layer_of_a_model_is_annotated_and_computes_the_same():
    x, _ = samples()
    model = dense_model()
    annotated = annotate_model(model)
    assert [type(layer) for layer in annotated.layers] == [QuantizeAnnotate, QuantizeAnnotate]
    np.testing.assert_array_equal(annotated.predict(x, verbose=0), model.predict(x, verbose=0))


def test_annotated_layer_is_not_annotated_again():
    config = DenseConfig()
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(10), annotate_layer(keras.layers.Dense(5), config)])
    first, second = annotate_model(model).layers
    assert first.quantize_config is None
    assert second.quantize_config is config and isinstance(second.layer, keras.layers.Dense)


def test_model_of_custom_layers_is_annotated():
    (layer,) = annotate_model(keras.Sequential([keras.Input((2,)), DenseOfMine(3)])).layers
    assert isinstance(layer.layer, DenseOfMine)


def test_annotated_model_is_not_compiled_and_shares_nothing():
    model = dense_model()
    model.compile("sgd", "mse")
    annotated = annotate_model(model)
    assert not annotated.compiled and model.compiled
    assert not {id(v) for v in annotated.variables} & {id(v) for v in model.variables}


@pytest.mark.parametrize("wrong", [keras.layers.Dense(10), None])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be a keras\.Model"):
        annotate_model(wrong)


def test_subclassed_model_is_refused():
    with pytest.raises(ValueError, match="subclassed"):
        annotate_model(Subclassed())


def test_layers_of_a_nested_model_are_annotated():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)], name="inner")
    annotated = annotate_model(keras.Sequential([keras.Input((2,)), inner]))
    assert isinstance(annotated.get_layer("inner").layers[0], QuantizeAnnotate)


def test_lambda_stays_as_it_is():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(2), keras.layers.Lambda(lambda x: x + 1, name="plus")]
    )
    with pytest.warns(UserWarning, match="plus"):
        annotated = annotate_model(model)
    assert [type(layer).__name__ for layer in annotated.layers] == ["QuantizeAnnotate", "Lambda"]
    x = np.ones((1, 5), "float32")
    np.testing.assert_array_equal(annotated.predict(x, verbose=0), model.predict(x, verbose=0))
