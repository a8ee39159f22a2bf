"""Preprocessing layers, and layers that have an effect in training only."""

from __future__ import annotations

import keras
import numpy as np

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission, to_numpy
from tensorflow_quantization.export.onnx.emitters.reshaping import crop
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value


@emitter(
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", "GaussianNoise"),
    *("AlphaDropout", "ActivityRegularization", "Identity", "StopGradient"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomElasticTransform"),
    *("RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert"),
    *("RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
    *("RandomShear", "RandomTranslation", "RandomZoom", "MixUp", "CutMix", "AugMix", "RandAugment"),
    *("Equalization", "Solarization"),
    layout="any",
)
def training_only(e: Emission, layer, x: Value) -> Value:
    return e.cast(x, e.outputs[0].dtype)


@emitter("Rescaling", layout="any")
def rescaling(e: Emission, layer, x: Value) -> Value:
    x = e.cast(x, "float32")
    scale, offset = (np.asarray(v, np.float32) for v in (layer.scale, layer.offset))
    if scale.ndim and keras.config.image_data_format() == "channels_first":
        scale = scale.reshape(scale.shape + (1,) * (3 - scale.ndim))
    y = e.op("Mul", x, e.constant(scale, x))
    return e.output(e.op("Add", y, e.constant(offset, x)) if offset.any() else y, x)


@emitter("Normalization", layout="any")
def normalization(e: Emission, layer, x: Value) -> Value:
    x = e.cast(x, "float32")
    mean = to_numpy(layer.mean, "float32")
    deviation = np.maximum(np.sqrt(to_numpy(layer.variance, "float32")), np.float32(keras.config.epsilon()))
    mean, deviation = e.constant(mean, x), e.constant(deviation, x)
    if layer.invert:
        return e.output(e.op("Add", e.op("Mul", x, deviation), mean), x)
    return e.output(e.op("Div", e.op("Sub", x, mean), deviation), x)


@emitter("AutoContrast", layout="any")
def auto_contrast(e: Emission, layer, x: Value) -> Value:
    least, greatest = layer.value_range
    x = e.cast(x, "float32")
    images = x.with_onnx(e.op("Mul", e.op("Sub", x, float(least)), 255.0 / (greatest - least)))
    axes = [x.position(axis) for axis in (1, 2)]
    low, high = (e.op(kind, images, axes=axes, keepdims=1) for kind in ("ReduceMin", "ReduceMax"))
    scale = e.op("Div", 255.0, e.op("Sub", high, low))
    y = e.op("Clip", e.op("Mul", e.op("Sub", images, low), scale), 0.0, 255.0)
    y = e.op("Add", e.op("Mul", y, (greatest - least) / 255.0), float(least))
    # A channel with a single value stays unchanged.
    y = e.op("Where", e.op("Equal", high, low), x, y)
    return e.output(e.cast(x.with_onnx(y), e.outputs[0].dtype).onnx, x)


@emitter("CenterCrop", layout="channels_first")
def center_crop(e: Emission, layer, x: Value) -> Value:
    height, width = x.stored_shape[2:]
    if height is None or width is None or height < layer.height or width < layer.width:
        raise NotExpressibleError("crops images whose size is unknown or smaller than the crop")
    axes = [x.order[2], x.order[3]]
    starts = [(height - layer.height) // 2, (width - layer.width) // 2]
    bounds = {axes[0]: (starts[0], starts[0] + layer.height), axes[1]: (starts[1], starts[1] + layer.width)}
    x = e.cast(x, "float32")
    return e.output(crop(e, x, bounds), x)


@emitter("RandomCrop", layout="any")
def random_crop(e: Emission, layer, x: Value) -> Value:
    if x.shape != tuple(e.outputs[0].shape):
        raise NotExpressibleError(
            "does not crop images at inference, so its output has another shape than Keras infers; use "
            "keras.layers.CenterCrop for inference"
        )
    return e.cast(x, e.outputs[0].dtype)


@emitter("Pipeline", layout="any")
def pipeline(e: Emission, layer, x: Value) -> Value:
    for inner in layer.layers:
        shape = inner.compute_output_shape(x.shape)
        x = e.emit(inner, x, outputs=[keras.KerasTensor(shape, inner.compute_dtype)], inner=inner.name)
    return x
