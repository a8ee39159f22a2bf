"""TensorRT 10 and 11: dedicated Q/DQ pairs in front of what runs in INT8, int8 symmetric with zero point 0.

From its documentation, "Working with quantized types", and its ONNX importer; no TensorRT was at hand to measure.
"""

from dataclasses import replace

import keras

from tensorflow_quantization.custom_qdq_cases import (
    BNQDQCase,
    EfficientNetQDQCase,
    MaxPoolQDQCase,
)
from tensorflow_quantization.graph import NORMALIZATIONS
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.targets.table import LayerRule, by_table
from tensorflow_quantization.targets.target import Placement, Target
from tensorflow_quantization.targets.tensors import SEPARABLE

_WEIGHTED = (
    *(f"Conv{rank}D{suffix}" for rank in (1, 2, 3) for suffix in ("", "Transpose")),
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dense",
    "EinsumDense",
)
_POOLINGS = (f"{scope}AveragePooling{rank}D" for rank in (1, 2, 3) for scope in ("", "Global"))

_TABLE = by_table(
    {
        **dict.fromkeys(_WEIGHTED, LayerRule()),
        **dict.fromkeys(SEPARABLE, LayerRule(inner=True)),
        **dict.fromkeys(_POOLINGS, LayerRule(weights=False)),
    }
)
#: Residual adds and squeeze-and-excite products, normalizations that are not folded, and max pooling.
_CASES = (EfficientNetQDQCase(), BNQDQCase(), MaxPoolQDQCase())


def _place(graph, switched_off):
    placements = _TABLE(graph, switched_off)
    for call in graph.calls:
        inputs = next((found for case in _CASES if (found := case.inputs(graph, call))), None)
        if inputs and call.is_layer and not switched_off(call) and not _folds_into_product(graph, call):
            placements[call.path] = Placement(tuple(inputs))
    return {path: replace(placement, reason="runs in INT8") for path, placement in placements.items()}


def _folds_into_product(graph, call):
    """Whether `call` is a normalization that export folds into the Dense before it."""
    if NORMALIZATIONS.isdisjoint(call.class_names):
        return False
    (tensor,) = call.inputs
    product = tensor.producer
    if product is None or "Dense" not in product.class_names or len(graph.consumers(tensor)) != 1:
        return False
    return product.operation.activation is keras.activations.linear and not graph.is_output(tensor)


TENSORRT = Target(
    name="tensorrt",
    place=_place,
    # The runtime saturates at -128, so activations may too; weights stay within -127 to 127.
    activations=QuantizationScheme(narrow_range=False),
    weights=QuantizationScheme(),
)
