"""What tests ask of quantized models, and specs to quantize them with."""

import keras
import small_models
from small_models import assert_same_arrays, values

from tensorflow_quantization import (
    QuantizationSpec,
    describe,
)
from tensorflow_quantization.model.keras_internals import nodes_of, reading_nodes, sublayers


def quantized(model):
    """The paths of the quantized layers, by their original names."""
    return [layer.name.replace("quant_", "") for layer in describe(model) if layer.quantized]


def spec_of(*names, **arguments):
    spec = QuantizationSpec()
    for name in names:
        spec.add(name, **arguments)
    return spec


def snapshot(model):
    """Everything about a model that quantizing it might disturb."""
    return {
        "weights": values(model),
        "config": keras.saving.serialize_keras_object(model)
        if not isinstance(model, small_models.Subclassed)
        else None,
        "nodes": [(layer.name, len(nodes_of(layer)), len(reading_nodes(layer))) for layer in sublayers(model)],
        "identities": [id(layer) for layer in [model, *sublayers(model)]],
        "compiled": model.compiled,
        "optimizer": id(getattr(model, "optimizer", None)),
        "trainable": [w.trainable for w in model.weights],
    }


def assert_same_snapshot(actual, expected):
    assert_same_arrays(actual.pop("weights"), expected.pop("weights"))
    assert actual == expected
