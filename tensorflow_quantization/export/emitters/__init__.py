"""One file a family of layers; importing this package registers them all."""

from tensorflow_quantization.export.emitters import (
    activation,
    convolution,
    dense,
    merging,
    normalization,
    operations,
    pooling,
    preprocessing,
    quantized,
    reshaping,
)

__all__ = [
    "activation",
    "convolution",
    "dense",
    "merging",
    "normalization",
    "operations",
    "pooling",
    "preprocessing",
    "quantized",
    "reshaping",
]
