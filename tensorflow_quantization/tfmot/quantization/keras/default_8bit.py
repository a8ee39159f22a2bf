"""`tfmot.quantization.keras.default_8bit`: the default scheme, 8-bit integers for LiteRT."""

from __future__ import annotations

import keras

from tensorflow_quantization.model.keras_classes import is_of_keras
from tensorflow_quantization.targets.litert import RULES
from tensorflow_quantization.tfmot.missing import missing
from tensorflow_quantization.tfmot.quantization.keras.quantize_config import QuantizeConfig
from tensorflow_quantization.tfmot.quantization.keras.quantizers import LastValueQuantizer, MovingAverageQuantizer
from tensorflow_quantization.tfmot.quantization.keras.scheme import QuantizeScheme, check_per_axis
from tensorflow_quantization.wrappers import find_wrapper

__all__ = ["Default8BitQuantizeConfig", "Default8BitQuantizeRegistry", "Default8BitQuantizeScheme"]

#: Layers that are one activation function.
_ACTIVATIONS = frozenset({"Activation", "LeakyReLU", "PReLU", "ReLU", "Softmax"})


class Default8BitQuantizeScheme(QuantizeScheme):
    """The 8-bit integers and the placement of `target="litert"`, the default of `quantize_apply`.

    Args:
        disable_per_axis: must be `False`, the default: weights are quantized per output channel.

    Raises:
        ValueError: `disable_per_axis` is set.
    """

    def __init__(self, disable_per_axis: bool = False):
        check_per_axis(type(self).__name__, disable_per_axis)
        super().__init__()


class Default8BitQuantizeConfig(QuantizeConfig):
    """A `QuantizeConfig` with 8-bit quantizers for the attributes of a layer that it names.

    Args:
        weight_attrs: list of str, the attributes that hold weights.
        activation_attrs: list of str, the attributes that hold activation functions.
        quantize_output: bool; quantize the output.
        per_axis: bool; the weights have one scale per output channel, which `export_litert` needs. Default `True`.
    """

    def __init__(
        self, weight_attrs: list[str], activation_attrs: list[str], quantize_output: bool, per_axis: bool = True
    ):
        self.weight_attrs = list(weight_attrs)
        self.activation_attrs = list(activation_attrs)
        self.quantize_output = quantize_output
        self.per_axis = per_axis

    def get_weights_and_quantizers(self, layer):
        quantizer = LastValueQuantizer(8, self.per_axis, symmetric=True, narrow_range=True)
        return [(getattr(layer, name), quantizer) for name in self.weight_attrs]

    def get_activations_and_quantizers(self, layer):
        return [(getattr(layer, name), self._activation) for name in self.activation_attrs]

    def set_quantize_weights(self, layer, quantize_weights):
        """Does nothing: the layer computes with quantized values of its variables."""

    def set_quantize_activations(self, layer, quantize_activations):
        for name, activation in zip(self.activation_attrs, quantize_activations, strict=True):
            setattr(layer, name, activation)

    def get_output_quantizers(self, layer):
        return [self._activation] if self.quantize_output else []

    @property
    def _activation(self) -> MovingAverageQuantizer:
        return MovingAverageQuantizer(8, per_axis=False, symmetric=False, narrow_range=False)

    def get_config(self):
        names = ("weight_attrs", "activation_attrs", "quantize_output", "per_axis")
        return {name: getattr(self, name) for name in names}


class Default8BitQuantizeRegistry:
    """Which layers LiteRT computes in 8-bit integers, and a `QuantizeConfig` for each.

    Args:
        disable_per_axis: bool; the configs have one scale for a whole weight. Default `False`.
    """

    def __init__(self, disable_per_axis: bool = False):
        self.per_axis = not disable_per_axis

    def supports(self, layer: keras.layers.Layer) -> bool:
        """Returns whether LiteRT has an integer kernel for the Keras layer."""
        known = RULES.weighted | RULES.unweighted | _ACTIVATIONS
        return is_of_keras(type(layer)) and type(layer).__name__ in known

    def get_quantize_config(self, layer: keras.layers.Layer) -> QuantizeConfig:
        """Returns a `Default8BitQuantizeConfig` for the layer.

        Raises:
            ValueError: the layer has no integer kernel.
        """
        if not self.supports(layer):
            raise ValueError(
                f"LiteRT has no integer kernel for layer {layer.name!r} ({type(layer).__name__}). Write a "
                "QuantizeConfig for it, or leave it in float."
            )
        if type(layer).__name__ not in RULES.weighted:
            return Default8BitQuantizeConfig([], [], True)
        wrapper = find_wrapper(layer)
        assert wrapper is not None  # of each Keras layer with a kernel
        return Default8BitQuantizeConfig(list(wrapper(layer).kernels), ["activation"], False, self.per_axis)


_PLACED = 'target="litert" places the quantizers; see tensorflow_quantization.describe'
__getattr__ = missing(
    __name__,
    {
        "Default8BitQuantizeLayoutTransform": _PLACED,
        "default_8bit_transforms": _PLACED,
    },
)
