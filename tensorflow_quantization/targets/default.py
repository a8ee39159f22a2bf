"""The documented default: the table of the old toolkit, made for TensorRT."""

from tensorflow_quantization.targets.table import LayerRule, by_table
from tensorflow_quantization.targets.target import Target

_OFF = "off by default: name the layer or its class in a QuantizationSpec, or pass {case}"

DEFAULT = Target(
    name="default",
    place=by_table(
        {
            "Conv2D": LayerRule(),
            "Dense": LayerRule(),
            "DepthwiseConv2D": LayerRule(),
            "AveragePooling2D": LayerRule(weights=False),
            "GlobalAveragePooling2D": LayerRule(weights=False),
            "MaxPooling2D": LayerRule(False, False, _OFF.format(case="MaxPoolQDQCase")),
            "BatchNormalization": LayerRule(False, False, _OFF.format(case="BNQDQCase")),
            "Concatenate": LayerRule(False, False, _OFF.format(case="a case of your own")),
            "Add": LayerRule(False, False, _OFF.format(case="ResidualConnectionQDQCase")),
            "Multiply": LayerRule(False, False, _OFF.format(case="EfficientNetQDQCase")),
        }
    ),
)
