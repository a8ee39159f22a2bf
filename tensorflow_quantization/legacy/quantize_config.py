"""`QuantizationSpec` and `LayerConfig`, under their old module path.

NVIDIA's module also held the state of a running `quantize_model`. Here each call makes a new plan and keeps no state.
"""

from tensorflow_quantization.quantize.spec import LayerConfig, QuantizationSpec

__all__ = ["LayerConfig", "QuantizationSpec"]
