"""`SmallKernels`: the smallest kernels keep more bits than the rest of the network."""

from __future__ import annotations

import keras

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.noise.alone import count_weights, quantized_calls
from tensorflow_quantization.quantize import QuantizationSpec
from tensorflow_quantization.quantize.case import CustomQDQInsertionCase

#: The greatest share of all weights. A file with 4 bits has 0.53 of the bytes of one with 8, and so 0.55.
_SHARE = 0.035


class SmallKernels(CustomQDQInsertionCase):
    """The layers with the fewest weights have bits of their own.

    Small kernels, of the first layers and depthwise ones, add as much noise to the outputs as large ones, or more, and
    more bits for them take few bytes.

    Args:
        quantized: the result of `quantize_model`, of the model that the case is for.
        bits: int, 2 to 8.

    Attributes:
        paths: of the layers, the fewest weights first, then from the inputs on; together up to 3.5 % of all weights.
    """

    def __init__(self, quantized: keras.Model, bits: int):
        calls = quantized_calls(LayerGraph.trace(quantized).flatten())
        weights = {path: count_weights(call) for path, call in calls.items()}
        left = _SHARE * sum(weights.values())
        self.bits = bits
        self.paths: list[str] = []
        for path in sorted(weights, key=weights.__getitem__):
            left -= weights[path]
            if left < 0:
                break
            self.paths.append(path)

    def case(self, keras_model, qspec):
        spec = QuantizationSpec()
        for path in self.paths:
            spec.add(path, weight_bits=self.bits)
        return spec
