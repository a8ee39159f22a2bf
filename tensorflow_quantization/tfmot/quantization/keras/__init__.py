"""`tfmot.quantization.keras`: the names that TFMOT's scripts call, on Keras 3."""

from tensorflow_quantization.tfmot.missing import missing
from tensorflow_quantization.tfmot.quantization.keras import default_8bit, experimental, quantizers
from tensorflow_quantization.tfmot.quantization.keras.annotate import (
    quantize_annotate_layer,
    quantize_annotate_model,
)
from tensorflow_quantization.tfmot.quantization.keras.quantize import quantize_apply, quantize_model, quantize_scope
from tensorflow_quantization.tfmot.quantization.keras.quantize_config import QuantizeConfig
from tensorflow_quantization.tfmot.quantization.keras.ranges import fix_input_output_range, remove_input_range
from tensorflow_quantization.tfmot.quantization.keras.scheme import QuantizeScheme
from tensorflow_quantization.tfmot.quantization.keras.wrapper import QuantizeWrapperV2
from tensorflow_quantization.wrappers import BaseQuantizeWrapper as QuantizeWrapper

__all__ = [
    "QuantizeConfig",
    "QuantizeScheme",
    "QuantizeWrapper",
    "QuantizeWrapperV2",
    "default_8bit",
    "experimental",
    "fix_input_output_range",
    "quantize_annotate_layer",
    "quantize_annotate_model",
    "quantize_apply",
    "quantize_model",
    "quantize_scope",
    "quantizers",
    "remove_input_range",
]

_TARGET = "a target places the quantizers; pass a custom Target to tensorflow_quantization.quantize_model"
__getattr__ = missing(
    __name__,
    {
        "QuantizeLayoutTransform": _TARGET,
        "QuantizeRegistry": f"{_TARGET}, or a QuantizeConfig to quantize_annotate_layer",
        "collab_opts": "pruning and clustering are not part of this package",
        "graph_transformations": "the graph of a model is tensorflow_quantization.model.graph.LayerGraph",
    },
)
