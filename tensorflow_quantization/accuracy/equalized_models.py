"""With which float weights those of a result of `post_training_quantize` are to be compared."""

from __future__ import annotations

from weakref import ReferenceType, WeakKeyDictionary, ref

import keras

#: By quantized model: the float model that it was made from, and the equalized copy.
_MODELS: WeakKeyDictionary[keras.Model, tuple[ReferenceType[keras.Model], keras.Model]] = WeakKeyDictionary()


def remember(quantized: keras.Model, model: keras.Model, equalized: keras.Model) -> None:
    """Keeps the equalized copy of `model` that `quantized` was made from, for as long as `quantized` lives."""
    _MODELS[quantized] = (ref(model), equalized)


def equalized_model(quantized: keras.Model, model: keras.Model) -> keras.Model:
    """Returns the equalized copy of a float model if `quantized` was made from it in this process, else `model`."""
    original, equalized = _MODELS.get(quantized, (None, None))
    return equalized if original is not None and equalized is not None and original() is model else model
