"""`CustomQDQInsertionCase`: the base class of rules that choose layers to quantize by the model's structure."""

from __future__ import annotations

from abc import ABC, abstractmethod

import keras

from tensorflow_quantization.quantize.spec import QuantizationSpec


class CustomQDQInsertionCase(ABC):
    """Base class of a rule that chooses layers by the model's structure: subclass it and override `case`.

    Pass instances to `quantize_model(..., custom_qdq_cases=[...])`.

    Examples:
        >>> class FourBitDense(CustomQDQInsertionCase):
        ...     def case(self, keras_model, qspec):
        ...         spec = QuantizationSpec()
        ...         for layer in keras_model.layers:
        ...             if isinstance(layer, keras.layers.Dense):
        ...                 spec.add(layer.name, weight_bits=4)
        ...         return spec
        >>> quantized = quantize_model(model, "partial", custom_qdq_cases=[FourBitDense()])
        >>> [layer.name for layer in describe(quantized) if layer.quantized]
        ['quant_scores']
    """

    def info(self) -> str:
        """The first line of the class docstring; the class name if there is no docstring."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]

    @abstractmethod
    def case(self, keras_model: keras.Model, qspec: QuantizationSpec) -> QuantizationSpec | None:
        """The entries that this rule adds for a model.

        Args:
            keras_model: the float `keras.Model` that is quantized; do not change it. A block (a custom layer made of
                layers) appears as a nested model if it can be opened and `qspec` does not name it. Name a layer inside
                it by its path: "block1/add".
            qspec: a copy of the spec that the user passed, empty if there is none. Its entries win over the returned
                entries.

        Returns:
            A `QuantizationSpec` with an entry for each layer that the rule decides on, or `None` for no entries. A
            block that an entry names is not opened.
        """
