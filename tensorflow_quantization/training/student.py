"""The quantized model in a model that is trained."""

from __future__ import annotations

import keras

from tensorflow_quantization.model.keras_internals import sublayers


def student_of(model: keras.Model) -> keras.Model:
    """Returns the quantized model that `fit` of `model` trains: the student of `distill`, or the model itself."""
    return getattr(model, "student", model)


def retrace(model: keras.Model) -> None:
    """Lets a running `fit` compile its step again, because attributes of layers have changed."""
    model.make_train_function(force=True)


def sync(model: keras.Model) -> None:
    """Gives the variables their values during an epoch: with JAX, `fit` holds them elsewhere."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Returns the BatchNormalization layers in a model."""
    return [layer for layer in sublayers(model) if isinstance(layer, keras.layers.BatchNormalization)]
