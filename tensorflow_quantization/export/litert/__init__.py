"""Keras models quantized with `target="litert"` to integer `.tflite` files, through TensorFlow's converter."""

from tensorflow_quantization.export.litert.exporter import export_litert

__all__ = ["export_litert"]
