"""The wrappers of quantized layers: QuantizeLinear and DequantizeLinear around the nodes of the layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import tree

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission
from tensorflow_quantization.export.onnx.emitters.convolution import depthwise_half, pointwise_half
from tensorflow_quantization.export.onnx.metadata import SHARED
from tensorflow_quantization.export.onnx.registry import emitter, find_emitter
from tensorflow_quantization.export.onnx.values import Value
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import BaseQuantizeWrapper
from tensorflow_quantization.wrappers.bias import integer_bias
from tensorflow_quantization.wrappers.layers import ActivationQuantizeWrapper, SeparableBaseQuantizeWrapper


def _as_it_comes(layer: Any, values: Sequence[Value]) -> None:
    """No change: `quantize_wrapper` uses the layout of the layer inside."""


# Structural: the emitter writes the layer and the quantizers of a wrapper. It writes a subclass that overrides `call`
# like its base class.
@emitter(BaseQuantizeWrapper, layout=_as_it_comes, structural=True)
def quantize_wrapper(e: Emission, wrapper, inputs: Any, **kwargs: Any) -> Any:
    layer = wrapper.layer
    entry = find_emitter(layer)
    if entry is None:
        kind = type(layer).__name__
        raise NotExpressibleError(
            f"wraps a {kind}, which has no emitter. Register one, in which `e.weight` is the quantized weight, or "
            f"quantize the float model with a spec that leaves the layer in float: add({layer.name!r}, "
            "quantize_input=False, quantize_weight=False)"
        )
    # Transpose before quantizing: runtimes fuse a DequantizeLinear only if the operator directly follows it.
    (inputs,), kwargs = e.arrange_inputs(entry, layer, (inputs,), kwargs)
    quantizers = iter(wrapper.input_quantizers)
    names = iter(input_names(len(wrapper.input_quantizers)))

    def quantized(x: Value) -> Value:
        quantizer, name = next(quantizers), next(names)
        return x if quantizer is None else quantize(e, quantizer, x, name)

    inputs = tree.map_structure(quantized, inputs)
    result = _within(e, wrapper).run(entry, (inputs,), kwargs)
    if wrapper.output_quantizer is None:
        return result
    if isinstance(result, list):
        raise NotExpressibleError("quantizes the output of a layer with several outputs")
    return quantize(e, wrapper.output_quantizer, result, "output")


@emitter(ActivationQuantizeWrapper, layout="any")
def gated_activation(e: Emission, wrapper, x: Value, **kwargs: Any) -> Any:
    if wrapper.gate_quantizer is None:
        return quantize_wrapper(e, wrapper, x, **kwargs)
    (quantizer,) = wrapper.input_quantizers
    x = x if quantizer is None else quantize(e, quantizer, x, "input")
    gate = quantize(e, wrapper.gate_quantizer, x.with_onnx(e.op("Sigmoid", x)), "gate")
    y = x.with_onnx(e.op("Mul", x, gate))
    return y if wrapper.output_quantizer is None else quantize(e, wrapper.output_quantizer, y, "output")


@emitter(SeparableBaseQuantizeWrapper, layout=_as_it_comes, structural=True)
def separable_convolution(e: Emission, wrapper, x: Value) -> Any:
    layer = wrapper.layer
    entry = find_emitter(layer)
    if entry is None or wrapper.inner_quantizer is None:
        return quantize_wrapper(e, wrapper, x)
    (x,), _ = e.arrange_inputs(entry, layer, (x,), {})
    (quantizer,) = wrapper.input_quantizers
    x = x if quantizer is None else quantize(e, quantizer, x, "input")
    inner = _within(e, wrapper)
    x = quantize(e, wrapper.inner_quantizer, depthwise_half(inner, layer, x), "inner")
    y = pointwise_half(inner, layer, x)
    return y if wrapper.output_quantizer is None else quantize(e, wrapper.output_quantizer, y, "output")


@emitter(ActivationQuantizer, layout="any")
def activation_quantizer(e: Emission, quantizer: ActivationQuantizer, x: Value) -> Value:
    return quantize(e, quantizer, x, "output")


def _within(e: Emission, wrapper: BaseQuantizeWrapper) -> Emission:
    """An emission for the layer in a wrapper, with quantized kernels and the bias that integer kernels can store."""
    bias = integer_bias(wrapper, np)
    arrays = {} if bias is None else {"bias": bias}
    return e.wrapped(wrapper.layer, wrapper.weight_quantizers, arrays)


def input_names(count: int) -> list[str]:
    """The names of the inputs of a layer with `count` inputs, within the layer."""
    return ["input"] if count == 1 else [f"input_{i}" for i in range(count)]


def quantize(e: Emission, quantizer: ActivationQuantizer, x: Value, name: str) -> Value:
    """Append a QuantizeLinear and a DequantizeLinear after `x`.

    Args:
        e: the emission of the wrapper.
        quantizer: the quantizer with scale and zero point.
        x: the value to quantize.
        name: name of the value within the layer: "input", "input_1", "output".

    Returns:
        The output of the DequantizeLinear.
    """
    scheme = quantizer.scheme
    scale, zero_point = quantizer.parameters()
    x = e.cast(x, "float32")
    onnx = x.onnx
    e.builder.require_dtype(scheme.dtype)
    if not scheme.saturates:
        # QuantizeLinear saturates at the limits of the dtype only. A pass removes a Clip without effect.
        limits = np.iinfo(scheme.dtype)
        step = np.float32(scale)
        low = None if scheme.qmin == limits.min else np.float32((scheme.qmin - int(zero_point)) * step)
        high = None if scheme.qmax == limits.max else np.float32((scheme.qmax - int(zero_point)) * step)
        onnx = e.op("Clip", onnx, low, high, name=f"{name}/Clip")
    constants = [
        e.builder.initializer(f"{e.path}/{name}_scale", np.asarray(scale, np.float32)),
        e.builder.initializer(f"{e.path}/{name}_zero_point", np.asarray(zero_point, scheme.dtype)),
    ]
    integers = e.op("QuantizeLinear", onnx, *constants, name=f"{name}/QuantizeLinear")
    integers.meta[SHARED] = name == "output"
    e.record(quantizer, x.with_onnx(integers, scheme.dtype))
    result = x.with_onnx(e.op("DequantizeLinear", integers, *constants, name=f"{name}/DequantizeLinear"))
    e.builder.annotate(result)
    return result
