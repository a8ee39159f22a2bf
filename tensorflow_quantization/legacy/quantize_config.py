"""What to quantize, under its old module path.

The old module had the state of a running `quantize_model` too, which nobody needs: a plan is made anew for each call.
"""

from tensorflow_quantization.quantize.spec import LayerConfig, QuantizationSpec

__all__ = ["LayerConfig", "QuantizationSpec"]
