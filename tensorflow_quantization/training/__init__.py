"""Quantization-aware training: `fine_tune`, and its pieces alone: distillation, callbacks, BatchNormalization."""

from tensorflow_quantization.training.dampening import Dampen
from tensorflow_quantization.training.distillation import distill
from tensorflow_quantization.training.fine_tuning import fine_tune
from tensorflow_quantization.training.frozen_ranges import FreezeRanges, freeze_ranges
from tensorflow_quantization.training.frozen_statistics import FreezeBatchNormalization
from tensorflow_quantization.training.oscillation import QuantizationLogger
from tensorflow_quantization.training.reestimation import ReestimateBatchNormalization, reestimate_batch_normalization

__all__ = [
    "Dampen",
    "FreezeBatchNormalization",
    "FreezeRanges",
    "QuantizationLogger",
    "ReestimateBatchNormalization",
    "distill",
    "fine_tune",
    "freeze_ranges",
    "reestimate_batch_normalization",
]
