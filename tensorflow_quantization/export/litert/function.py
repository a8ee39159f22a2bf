"""A quantized Keras model as a TensorFlow function of constants only, with its ranges as fake-quantization operators.

TensorFlow's converter reads the integers of a tensor from `fake_quant_with_min_max_args`. Kernels carry no such
operator, which it knows in some layouts only: they are constants on the grid of their integers, with 127 the largest
of each channel, and the converter, which takes the largest weight of a channel for 127, finds the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.export.emission import plain_name, to_numpy
from tensorflow_quantization.export.litert.affine import Affine, folded_normalizations, inner_layer, read_affine
from tensorflow_quantization.export.litert.products import product_of
from tensorflow_quantization.graph import MOVING, Call, LayerGraph, Tensor, substitute
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.targets.tensors import JOINING, activation_name
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, activation_quantizers
from tensorflow_quantization.wrappers.attention import AttentionBaseQuantizeWrapper
from tensorflow_quantization.wrappers.base import output_channel_axis
from tensorflow_quantization.wrappers.bias import integer_bias
from tensorflow_quantization.wrappers.layers import ActivationQuantizeWrapper

_POOLINGS = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
)
#: Computes a call from its arguments, on tensors of TensorFlow.
Step = Callable[..., Any]


@dataclass(frozen=True)
class Function:
    """A model as TensorFlow's converter takes it.

    Attributes:
        concrete: its inputs are those of the model, in their order and by their names; its results are called
            `output_0`, `output_1`, …, and `quantized_0`, `quantized_1`, ….
        quantized: for each of the latter the call and the quantizer that it comes from.
    """

    concrete: Any
    quantized: list[tuple[Call, ActivationQuantizer]]


def make_function(graph: LayerGraph, expose: bool = False) -> Function:
    """The function of a flat graph.

    Args:
        graph: of a quantized model.
        expose: what each activation quantizer gives becomes a result too.
    """
    import tensorflow as tf

    # Weights and ranges are read here: within the trace, variables have no values.
    steps = _Steps(graph)
    quantized: list[tuple[Call, ActivationQuantizer]] = []

    def run(*inputs):
        values = {id(t): x for t, x in zip(graph.inputs, inputs, strict=True)}
        steps.quantized.clear()
        for call in graph.calls:
            args = substitute(call.args, lambda t: values[id(t)])
            kwargs = substitute(call.kwargs, lambda t: values[id(t)])
            if "training" in kwargs:
                kwargs["training"] = False
            with tf.name_scope(plain_name(call.path)):
                result = steps[call](*args, **kwargs)
            values.update((id(t), y) for t, y in zip(call.outputs, tree.flatten(result), strict=True))
        results = {f"output_{i}": tf.identity(values[id(t)]) for i, t in enumerate(graph.outputs)}
        quantized[:] = [(call, quantizer) for call, quantizer, _ in steps.quantized]
        if expose:
            results.update((f"quantized_{i}", tf.identity(y)) for i, (_, _, y) in enumerate(steps.quantized))
        return results

    signature = [tf.TensorSpec(t.shape, t.dtype, plain_name(t.name)) for t in graph.inputs]
    concrete = tf.function(run, autograph=False).get_concrete_function(*signature)
    return Function(concrete, quantized)


class _Steps:
    """How to compute each call of a graph, everything that is constant in it computed already.

    Attributes:
        quantized: filled by the trace: each quantized tensor, with the call and the quantizer that it comes from.
    """

    def __init__(self, graph: LayerGraph):
        self.quantized: list[tuple[Call, ActivationQuantizer, Any]] = []
        self._graph = graph
        self._folded = folded_normalizations(graph)
        self._taken_up = {id(call) for call, _ in self._folded.values()}
        self._steps = {id(call): self._step(call) for call in graph.calls}

    def __getitem__(self, call: Call) -> Step:
        return self._steps[id(call)]

    def _step(self, call: Call) -> Step:
        operation = call.operation
        if isinstance(operation, ActivationQuantizer):
            return self._fake_quantize(call, operation)
        if not isinstance(operation, BaseQuantizeWrapper):
            return self._inner_step(call)
        if isinstance(operation, AttentionBaseQuantizeWrapper):
            attend, output = self._inner_step(call), self._fake_quantize(call, operation.output_quantizer)
            return lambda *args, **kwargs: output(attend(*args, **kwargs))
        inputs = [
            self._requantize(call, tensor, quantizer)
            for tensor, quantizer in zip(call.inputs, operation.input_quantizers, strict=True)
        ]
        inner = self._inner_step(call)
        output = self._fake_quantize(call, operation.output_quantizer)

        def step(x, **kwargs):
            flat = [quantize(value) for quantize, value in zip(inputs, tree.flatten(x), strict=True)]
            return output(inner(tree.pack_sequence_as(x, flat), **kwargs))

        return step

    def _inner_step(self, call: Call) -> Step:
        """What the operation, or the layer in a wrapper, does; kernels quantized."""
        operation = call.operation
        if id(call) in self._taken_up:
            return _identity
        inner = self._fake_quantize(call, getattr(operation, "inner_quantizer", None))
        if id(call) in self._folded:
            return _folded(operation, self._folded[id(call)][1], inner)
        if isinstance(operation, ActivationQuantizeWrapper) and operation.gate_quantizer is not None:
            gate = self._fake_quantize(call, operation.gate_quantizer)
            return lambda x, **kwargs: x * gate(keras.ops.sigmoid(x))
        affine = read_affine(call)
        if affine is not None and quantizer_of(call.inputs[0]) is not None:
            return _depthwise(affine)
        if _is_plain_reshape(call):
            step: Step = _reshape(call.outputs[0].shape)
        else:
            step = _layer(inner_layer(operation), _values(operation), inner) if call.is_layer else operation
        if _is_joining(call) and (shared := _shared_quantizer(self._graph, call)) is not None:
            # The runtime joins integers as they are, so the parts need the scale of the whole.
            return _joined(step, _fake_quantize(shared), [quantizer_of(t) is not None for t in call.inputs])
        if _is_moving(call) and (moved := quantizer_of(call.inputs[0])) is not None:
            # Else the converter may give what is moved the integers of what reads it.
            quantize = _fake_quantize(moved)
            return lambda *args, **kwargs: quantize(step(*args, **kwargs))
        if _activates_a_pooling(call):
            # Else the converter makes the two one operator, which has no scale for each.
            copy = _copy(call.inputs[0])
            return lambda x, **kwargs: step(copy(x), **kwargs)
        return step

    def _fake_quantize(self, call: Call, quantizer: ActivationQuantizer | None) -> Step:
        return _identity if quantizer is None else self._recorded(call, quantizer, _fake_quantize(quantizer))

    def _recorded(self, call: Call, quantizer: ActivationQuantizer, quantize: Callable[[Any], Any]) -> Step:
        def step(x, **kwargs):
            y = quantize(x)
            self.quantized.append((call, quantizer, y))
            return y

        return step

    def _requantize(self, call: Call, tensor: Tensor, quantizer: ActivationQuantizer | None) -> Step:
        """From the integers that `tensor` has already, if it has, to those of an input of `call`.

        For two quantizers in a row the converter puts in an operator of its own, whose kernel is less exact, or it
        fails where several others read the result.
        """
        before = quantizer_of(tensor)
        if quantizer is None or before is None:
            return self._fake_quantize(call, quantizer)
        if before.parameters() == quantizer.parameters():
            return self._recorded(call, quantizer, _identity)
        quantize, copy = self._fake_quantize(call, quantizer), _copy(tensor)
        return lambda x, **kwargs: quantize(copy(x))


def _is_plain_reshape(call: Call) -> bool:
    layer = inner_layer(call.operation)
    plain = isinstance(layer, keras.layers.Reshape) or (
        isinstance(layer, keras.layers.Flatten) and layer.data_format == "channels_last"
    )
    return plain and None not in call.outputs[0].shape[1:]


def _reshape(shape: tuple[int | None, ...]) -> Step:
    """A Reshape to a known shape; Keras' own would compute it at run time from that of its input."""
    return lambda x, **kwargs: keras.ops.reshape(x, (-1, *shape[1:]))


def quantizer_of(tensor: Tensor) -> ActivationQuantizer | None:
    """The quantizer whose values `tensor` holds, moved maybe; `None` if it has other values."""
    call = tensor.producer
    if call is None:
        return None
    if isinstance(call.operation, ActivationQuantizer):
        return call.operation
    own = getattr(call.operation, "output_quantizer", None)
    return quantizer_of(call.inputs[0]) if own is None and _is_moving(call) else own


def _is_moving(call: Call) -> bool:
    return type(inner_layer(call.operation)).__name__ in MOVING and len(call.inputs) == len(call.outputs) == 1


def _is_joining(call: Call) -> bool:
    return type(inner_layer(call.operation)).__name__ in JOINING


def _shared_quantizer(graph: LayerGraph, call: Call) -> ActivationQuantizer | None:
    """The quantizer of what `call` joins, which may be joined again, or moved, before it is quantized."""
    quantizers = activation_quantizers(call.operation)
    if quantizers:
        return quantizers[-1] if quantizers[-1] is getattr(call.operation, "output_quantizer", quantizers[-1]) else None
    readers = graph.consumers(call.outputs[0])
    if len(readers) != 1 or graph.is_output(call.outputs[0]):
        return None
    (reader,) = readers
    if isinstance(reader.operation, ActivationQuantizer):
        return reader.operation
    inputs = getattr(reader.operation, "input_quantizers", [])
    if any(inputs):
        return inputs[reader.inputs.index(call.outputs[0])]
    return _shared_quantizer(graph, reader) if _is_moving(reader) or _is_joining(reader) else None


def _activates_a_pooling(call: Call) -> bool:
    source = call.inputs[0].producer
    if source is None or not isinstance(inner_layer(source.operation), _POOLINGS):
        return False
    return activation_name(replace(call, operation=inner_layer(call.operation))) in ("relu", "relu6")


def _joined(step: Step, quantize: Callable[[Any], Any], quantized: list[bool]) -> Step:
    """`step`, with those parts quantized that are not yet.

    For the others the converter itself puts in an operator from one scale to the other, and two quantizers in a row it
    does not take.
    """

    def joined(*args, **kwargs):
        done = iter(quantized)
        parts = tree.map_structure(lambda x: x if not keras.ops.is_tensor(x) or next(done) else quantize(x), args)
        return step(*parts, **kwargs)

    return joined


def _fake_quantize(quantizer: ActivationQuantizer) -> Callable[[Any], Any]:
    scale, zero_point = (float(p) for p in quantizer.parameters())
    limits = np.iinfo(quantizer.scheme.dtype)
    low, high = (limits.min - zero_point) * scale, (limits.max - zero_point) * scale

    def quantize(x):
        import tensorflow as tf

        return tf.quantization.fake_quant_with_min_max_args(x, min=low, max=high, num_bits=8)

    return quantize


def _identity(x, **kwargs):
    return x


def _values(operation: Any) -> dict[str, np.ndarray]:
    """The variables of a layer, or of that in a wrapper, by path; kernels and bias as they are once quantized."""
    layer = inner_layer(operation)
    values = {v.path: to_numpy(v, v.dtype) for v in layer.variables}
    for name, quantizer in getattr(operation, "weight_quantizers", {}).items():
        path = getattr(layer, name).path
        values[path] = quantizer.dequantized(values[path])
    if getattr(layer, "bias", None) is not None and (bias := _integer_bias(operation)) is not None:
        values[layer.bias.path] = bias
    return values


def _integer_bias(operation: Any) -> np.ndarray | None:
    bias = integer_bias(operation) if isinstance(operation, BaseQuantizeWrapper) else None
    return None if bias is None else to_numpy(bias, "float32")


def _layer(layer: keras.layers.Layer, values: dict[str, np.ndarray], inner: Step) -> Step:
    """The layer with constants in the place of its variables; for `inner` see `product_of`."""
    if (product := product_of(layer, inner)) is not None:
        return partial(product, layer, values)

    def step(*args, **kwargs):
        mapping = [(v, keras.ops.convert_to_tensor(values[v.path], v.dtype)) for v in layer.variables]
        with keras.StatelessScope(mapping, initialize_variables=False):
            return layer(*args, **kwargs)

    return step


def _folded(wrapper: BaseQuantizeWrapper, affine: Affine, inner: Step) -> Step:
    """The layer in a wrapper, with the normalization that follows it in its last kernel and its bias."""
    layer, values, name = wrapper.layer, _values(wrapper), wrapper.kernels[-1]
    path = getattr(layer, name).path
    shape = [1] * values[path].ndim
    for axis in output_channel_axis(layer, name):
        shape[axis] = values[path].shape[axis]
    values[path] = _float32(values[path] * affine.factor.reshape(shape))
    if layer.use_bias:
        values[layer.bias.path] = _float32(values[layer.bias.path] * affine.factor + affine.shift)
        return _layer(layer, values, inner)
    product, bias = _layer(layer, values, inner), _integer_bias(wrapper)
    shift = _float32(affine.shift if bias is None else affine.shift + bias * affine.factor)

    def step(x, **kwargs):
        return product(x, **kwargs) + shift

    return step


def _copy(tensor: Tensor) -> Step:
    """`tensor`, for an output of another scale: a convolution of one pixel with weights of one."""
    channels = tensor.shape[-1]
    return _identity if channels is None else _depthwise(Affine(np.ones(channels), np.zeros(channels)))


def _depthwise(affine: Affine) -> Step:
    """A factor and a shift for each channel as a convolution of one pixel.

    As a product and a sum it would need integers for what flows in between, and one scale for all factors; weights of
    a convolution have a scale for each channel.
    """
    channels = affine.factor.size
    kernel, bias = _float32(affine.factor).reshape(1, 1, channels, 1), _float32(affine.shift)

    def step(x, **kwargs):
        import tensorflow as tf

        image = x if len(x.shape) == 4 else tf.reshape(x, (-1, 1, 1, channels))
        y = tf.nn.depthwise_conv2d(image, kernel, (1, 1, 1, 1), "VALID") + bias
        return y if image is x else tf.reshape(y, [-1 if d is None else d for d in x.shape])

    return step


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
