"""Accuracy without training: one method per file, and `post_training_quantize`, which uses them all."""

from tensorflow_quantization.accuracy.adaptive_rounding import adapt_rounding
from tensorflow_quantization.accuracy.bias_correction import correct_biases
from tensorflow_quantization.accuracy.equalization import equalize
from tensorflow_quantization.accuracy.post_training import post_training_quantize
from tensorflow_quantization.accuracy.rounding import round_weights
from tensorflow_quantization.accuracy.weight_ranges import clip_weights

__all__ = ["adapt_rounding", "clip_weights", "correct_biases", "equalize", "post_training_quantize", "round_weights"]
