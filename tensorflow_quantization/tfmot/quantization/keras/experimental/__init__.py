"""`tfmot.quantization.keras.experimental`: holds `default_n_bit`."""

from tensorflow_quantization.tfmot.quantization.keras.experimental import default_n_bit

__all__ = ["default_n_bit"]
