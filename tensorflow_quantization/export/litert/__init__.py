"""Writes Keras models quantized with `target="litert"` as integer `.tflite` files, with TensorFlow's converter."""

from tensorflow_quantization.export.litert.exporter import export_litert

__all__ = ["export_litert"]
