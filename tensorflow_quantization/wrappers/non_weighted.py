"""`NonWeightedBaseQuantizeWrapper`: the base class of wrappers for layers without a kernel, and for any such layer."""

from __future__ import annotations

import functools
import types

import keras

from tensorflow_quantization.wrappers.base import PACKAGE, SUFFIX, BaseQuantizeWrapper


class NonWeightedBaseQuantizeWrapper(BaseQuantizeWrapper):
    """Base class of wrappers for layers without a kernel: fake-quantizes the inputs, and the output if asked.

    Used directly, it wraps a layer whose class has no wrapper. `model.summary()` then shows the wrapper as
    `<LayerClass>QuantizeWrapper`, but a saved model loads this class.

    Examples:
        >>> wrapper = NonWeightedBaseQuantizeWrapper(keras.layers.Subtract(), quantize_specific_input_indices=[1])
        >>> a, b = np.ones((2, 1, 3), "float32")
        >>> wrapper([a, b]).shape == (1, 3)
        True
        >>> type(wrapper).__name__, len(wrapper.activation_quantizers)
        ('SubtractQuantizeWrapper', 1)

    Args:
        layer: the `keras.layers.Layer` to wrap, built or not.
        **kwargs: arguments of `BaseQuantizeWrapper`; `quantize_weights` has no effect.
    """

    def __new__(cls, layer, *args, **kwargs):
        if cls is NonWeightedBaseQuantizeWrapper:
            cls = _named_after(type(layer).__name__)
        return super().__new__(cls, layer, *args, **kwargs)

    def __init__(self, layer: keras.layers.Layer, **kwargs):
        kwargs["quantize_weights"] = False
        super().__init__(layer, **kwargs)


@functools.cache
def _named_after(layer_class: str) -> type[NonWeightedBaseQuantizeWrapper]:
    """Returns a subclass of `NonWeightedBaseQuantizeWrapper` that differs in its name only."""
    base = NonWeightedBaseQuantizeWrapper
    named = types.new_class(f"{layer_class}{SUFFIX}", (base,), {"registers": False})
    named.__module__ = base.__module__
    # A process that loads the model does not have the new class. So both classes get the registered name of the base
    # class: Keras saves either under this name, and loads the class that was registered last, which is the base.
    for cls in (named, base):
        keras.saving.register_keras_serializable(package=PACKAGE, name=base.__name__)(cls)
    return named
