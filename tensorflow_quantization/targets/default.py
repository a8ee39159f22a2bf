"""The default target: the table of NVIDIA's toolkit, made for TensorRT."""

from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.table import LayerRule, by_table
from tensorflow_quantization.targets.target import BlockRule, Target


def _off(case: str) -> LayerRule:
    """The rule for a class that is quantized only if a spec or a case names it."""
    text = f"off by default: name the layer or its class in a QuantizationSpec, or pass {case}"
    return LayerRule(False, False, Reason(ReasonCode.OFF_BY_DEFAULT, text))


DEFAULT = Target(
    name="default",
    place=by_table(
        {
            "Conv2D": LayerRule(),
            "Dense": LayerRule(),
            "DepthwiseConv2D": LayerRule(),
            "AveragePooling2D": LayerRule(weights=False),
            "GlobalAveragePooling2D": LayerRule(weights=False),
            "MaxPooling2D": _off("MaxPoolQDQCase"),
            "BatchNormalization": _off("BNQDQCase"),
            "Concatenate": _off("a custom case"),
            "Add": _off("ResidualConnectionQDQCase"),
            "Multiply": _off("EfficientNetQDQCase"),
        }
    ),
    blocks=BlockRule(),
)
