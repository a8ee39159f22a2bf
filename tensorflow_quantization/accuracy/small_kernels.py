"""`SmallKernels`: kernels of few weights keep more bits than the rest of the network."""

from __future__ import annotations

import math

import keras

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.weights import variable_of
from tensorflow_quantization.quantize import QuantizationSpec
from tensorflow_quantization.quantize.case import CustomQDQInsertionCase
from tensorflow_quantization.quantizers.scale_groups import reduced_axes
from tensorflow_quantization.wrappers import float_path, wrappers_in

#: An output channel with fewer weights is small: the least block of weights for which formats of 4 bits store a scale.
_FEW = 32
#: The greatest share of all weights: at 8 bits instead of 4, it makes a file a twentieth larger.
_SHARE = 0.05


class SmallKernels(CustomQDQInsertionCase):
    """Kernels with fewer than 32 weights for each scale, such as depthwise ones, have bits of their own.

    The errors of so few weights do not average out, and there are few of them in all. A layer is small if all its
    kernels are. Of many small layers, those with the fewest weights for each scale are chosen, up to a twentieth of the
    network's weights.

    Args:
        quantized: the result of `quantize_model`, of the model that the case is for.
        bits: int, 2 to 8.
    """

    def __init__(self, quantized: keras.Model, bits: int):
        self.bits = bits
        sizes = {float_path(c.path): _sizes(c.operation) for c in LayerGraph.trace(quantized).flatten().calls}
        left = _SHARE * sum(size for kernels in sizes.values() for _, size in kernels)
        small = {path: kernels for path, kernels in sizes.items() if kernels and max(kernels)[0] < _FEW}
        self.paths: list[str] = []
        for path, kernels in sorted(small.items(), key=lambda item: max(item[1])):
            left -= sum(size for _, size in kernels)
            if left < 0:
                break
            self.paths.append(path)

    def case(self, keras_model, qspec):
        spec = QuantizationSpec()
        for path in self.paths:
            spec.add(path, weight_bits=self.bits)
        return spec


def _sizes(operation: keras.Operation) -> list[tuple[int, int]]:
    """Returns, of each quantized kernel in an operation, how many weights share a scale, and how many it has."""
    sizes = []
    for wrapper in wrappers_in(operation):
        for name, quantizer in wrapper.weight_quantizers.items():
            shape = variable_of(wrapper.layer, name).shape
            of_a_scale = math.prod(shape[axis] for axis in reduced_axes(len(shape), quantizer.scheme))
            sizes.append((of_a_scale, math.prod(shape)))
    return sizes
