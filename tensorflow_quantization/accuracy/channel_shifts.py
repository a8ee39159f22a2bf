"""Where a constant of each channel can move from one layer's bias into the next without changing the function.

A source subtracts the shift t of each channel from its bias, and a reader with kernel W adds W @ t to its own. Zero
padding between the two would have to become -t, and dropout, too: there, nothing is shifted.
"""

from __future__ import annotations

import math
from enum import Enum, auto

import keras
import numpy as np

from tensorflow_quantization.accuracy.channel_factors import Rescaling, reading_kernels
from tensorflow_quantization.model.activations import Activation, is_activation, own_activation
from tensorflow_quantization.model.equation import Equation
from tensorflow_quantization.model.fusion import channel_axis
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.keras_internals import projection
from tensorflow_quantization.model.op_traits import Trait, traits
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.wrappers.channels import is_depthwise, output_channel_axis


class Shift(Enum):
    """How far the channels of a tensor can be shifted."""

    NONE = auto()
    #: Down to the least value, if it is above zero: a ReLU lies between source and readers.
    DOWN_TO_LEAST = auto()
    ANY = auto()


def possible_shift(graph: LayerGraph, place: Rescaling) -> Shift:
    """Returns how far the channels of the tensor of a rescaling can be shifted."""
    source = place.source.operation
    has_bias = getattr(source, "beta" if Trait.MULTIPLIES_BY_WEIGHTS not in traits(place.source) else "bias", None)
    if has_bias is None or any(_is_changed_by_shifts(call) for call in place.between):
        return Shift.NONE
    for call in place.readers:
        if _pads(call) or _holders(graph, call) is None:
            return Shift.NONE
    if own_activation(source) is Activation.LINEAR and not any(map(is_activation, place.between)):
        return Shift.ANY
    # Pooling hides the least values that the activation returns.
    all_are_read = all(is_activation(call) or "Flatten" in call.class_names for call in place.between)
    return Shift.DOWN_TO_LEAST if all_are_read else Shift.NONE


def shift_channels(graph: LayerGraph, place: Rescaling, shift: np.ndarray) -> None:
    """Subtracts the shift of each channel from a source, and adds what its readers make of it to their biases.

    Args:
        graph: the flattened graph that `place` is from.
        place: a rescaling with a `possible_shift`; its layers are changed in place.
        shift: (channels of the source,).
    """
    source = place.source.operation
    bias = source.bias if Trait.MULTIPLIES_BY_WEIGHTS in traits(place.source) else source.beta
    bias.assign(float32_array(bias) - shift.reshape(bias.shape))
    for call in place.readers:
        holders = _holders(graph, call)
        assert holders is not None  # else nothing can be shifted
        kernels = reading_kernels(call, place.tensor)
        for (kernel, axis), (variable, sign) in zip(kernels, holders, strict=True):
            constant = np.tensordot(float32_array(kernel), shift[place.index], axes=([axis], [0]))
            taps = tuple(range(constant.ndim - len(variable.shape)))  # of a convolution: each adds its part
            constant = constant.sum(axis=taps).reshape(variable.shape)
            variable.assign(float32_array(variable) + sign * constant)


def _is_changed_by_shifts(call: Call) -> bool:
    """Returns whether a call does not commute with adding a constant to a channel, in training or in inference."""
    padded = any(name.startswith("ZeroPadding") for name in call.class_names)
    return padded or Trait.IS_IDENTITY in traits(call)  # dropout and noise


def _pads(call: Call) -> bool:
    layer = call.operation
    return getattr(layer, "padding", "valid") != "valid" and set(getattr(layer, "kernel_size", ())) != {1}


def _holders(graph: LayerGraph, call: Call) -> list[tuple[keras.Variable, int]] | None:
    """Returns for each kernel of a reader what takes a constant, and its sign; `None` if a kernel has no such variable.

    A bias takes it; without one, the moving mean of the BatchNormalization behind the layer, with the sign -1.
    """
    layer = call.operation
    if Trait.PROJECTS in traits(call):
        layers = [dense for name in ("query", "key", "value") if (dense := projection(layer, name)) is not None]
        return None if any(dense.bias is None for dense in layers) else [(dense.bias, 1) for dense in layers]
    if isinstance(layer, keras.layers.EinsumDense):
        return _holder_of_einsum(layer, len(call.inputs[0].shape))
    is_plain = Trait.HAS_INNER_PRODUCT not in traits(call) and not is_depthwise(layer)
    if not is_plain or getattr(layer, "groups", 1) != 1 or output_channel_axis(layer, "kernel") != (-1,):
        return None
    if layer.bias is not None:
        return [(layer.bias, 1)]
    reader, axis = graph.only_reader(call.outputs[0]), channel_axis(call)
    if reader is None or axis is None or own_activation(layer) is not Activation.LINEAR:
        return None
    normalizes = Trait.NORMALIZES in traits(reader) and graph.is_only_call(reader)
    if not normalizes or reader.operation.axis % len(call.outputs[0].shape) != axis:
        return None
    return [(reader.operation.moving_mean, -1)]


def _holder_of_einsum(layer: keras.layers.EinsumDense, rank: int) -> list[tuple[keras.Variable, int]] | None:
    """Returns the bias, if it has all axes that the kernel makes, and the kernel sums over the channels alone."""
    equation = Equation.parse(layer.equation, rank)
    in_order = "".join(axis for axis in equation.output if axis in equation.made)
    if layer.bias is None or equation.summed != equation.inputs[-1] or in_order != equation.made:
        return None
    made = math.prod(layer.kernel.shape) // layer.kernel.shape[equation.kernel.index(equation.summed)]
    return [(layer.bias, 1)] if math.prod(layer.bias.shape) == made else None
