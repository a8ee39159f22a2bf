"""`tfmot.quantization`: holds `keras`, the quantization names for Keras models."""

from tensorflow_quantization.tfmot.quantization import keras

__all__ = ["keras"]
