"""`CustomQDQInsertionCase`: the base class of rules that place Q/DQ by the model's structure."""

from __future__ import annotations

from abc import ABC, abstractmethod

import keras

from tensorflow_quantization.quantize.spec import QuantizationSpec


class CustomQDQInsertionCase(ABC):
    """Base class of a rule: subclass it and override `case`."""

    def info(self) -> str:
        """What the rule is for, in a line."""
        return (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]

    @abstractmethod
    def case(self, keras_model: keras.Model, qspec: QuantizationSpec) -> QuantizationSpec | None:
        """What this rule asks of a model.

        Args:
            keras_model: the model that is quantized; not to be changed. A block, which is a layer of your own that is
                made of layers, stands in it as a nested model if it can be opened and `qspec` does not name it. A
                layer in it is named by its path: "block1/add".
            qspec: a copy of the user's own spec (empty if there is none), whose entries win over what is returned.

        Returns:
            A spec with the layers that the rule speaks of, or `None` for none. A block that it names stays a layer.
        """
