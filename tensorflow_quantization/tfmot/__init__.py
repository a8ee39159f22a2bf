"""TFMOT's quantization names on Keras 3: a script of TensorFlow Model Optimization changes one import.

    import tensorflow_quantization.tfmot as tfmot  # before: import tensorflow_model_optimization as tfmot

`tfmot.quantization.keras` has `quantize_model`, `quantize_annotate_layer`, `quantize_annotate_model`, `quantize_apply`,
`quantize_scope`, `QuantizeConfig` and the quantizers. Models are quantized for LiteRT, as `quantize_model(model,
target="litert")` of this package does. No other subpackage depends on this one.

One more line changes: `tf.lite.TFLiteConverter.from_keras_model` writes a float file from a quantized model and gives
no warning. Write the file with `tensorflow_quantization.export_litert(quantized, "model.tflite")`.
"""

from tensorflow_quantization.tfmot import quantization
from tensorflow_quantization.tfmot.missing import missing

__all__ = ["quantization"]

__getattr__ = missing(
    __name__,
    {
        "clustering": "weight clustering is not part of this package",
        "sparsity": "pruning is not part of this package",
    },
)
