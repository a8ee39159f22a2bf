"""A quantized Keras model as a TensorFlow function of fixed values, with its ranges as fake-quantization operators.

TensorFlow's converter reads the integers of a tensor from `fake_quant_with_min_max_args`. Kernels carry no such
operator, which it knows in some layouts only: their values are on the grid of their integers, with 127 the largest
of each channel, and the converter, which takes the largest weight of a channel for 127, finds the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.export.litert.affine import Affine, folded_layers, inner_layer, read_affine
from tensorflow_quantization.export.litert.constants import (
    Step,
    constant_layer,
    constant_values,
    fake_quantize,
    folded_layer,
    identity,
    rescaled,
    scaled,
)
from tensorflow_quantization.export.onnx.emission import plain_name
from tensorflow_quantization.model.activations import activation_of
from tensorflow_quantization.model.fusion import is_identity
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.interpreter import Interpreter
from tensorflow_quantization.model.op_traits import Trait, is_one_of, traits
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.targets.litert import FUSION
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, activation_quantizers
from tensorflow_quantization.wrappers.attention import AttentionBaseQuantizeWrapper
from tensorflow_quantization.wrappers.layers import ActivationQuantizeWrapper

#: Operators that compute no activation, besides most of what moves data.
_NOT_ACTIVATED = ("Concatenate", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "UpSampling2D")
#: Pooling alone, of what moves data, is an operator that computes an activation.
_POOLING = ("MaxPooling1D", "MaxPooling2D")


@dataclass(frozen=True)
class Function:
    """A model as TensorFlow's converter takes it.

    Attributes:
        concrete: its inputs are those of the model, in their order and by their names; its results are called
            `output_0`, `output_1`, …, and `quantized_0`, `quantized_1`, ….
        quantized: for each of the latter the call and the quantizer that it comes from.
        variables: the kernels, which `concrete` itself does not keep alive.
    """

    concrete: Any
    quantized: list[tuple[Call, ActivationQuantizer]]
    variables: list[Any]


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

    def compute(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with tf.name_scope(plain_name(call.path)):
            return steps[call](*args, **kwargs)

    def run(*inputs):
        steps.quantized.clear()
        outputs = tree.flatten(Interpreter(graph).run(inputs, compute))
        results = {f"output_{i}": tf.identity(y) for i, y in enumerate(outputs)}
        quantized[:] = [(call, quantizer) for call, quantizer, _ in steps.quantized]
        if expose:
            results.update((f"quantized_{i}", tf.identity(y)) for i, (_, _, y) in enumerate(steps.quantized))
        return results

    signature = [tf.TensorSpec(t.shape, t.dtype, plain_name(t.name)) for t in graph.inputs]
    concrete = tf.function(run, autograph=False).get_concrete_function(*signature)
    return Function(concrete, quantized, list(concrete.variables))


class _Steps:
    """How to compute each call of a graph, everything that is constant in it computed already.

    Attributes:
        quantized: filled by the trace: each quantized tensor, with the call and the quantizer that it comes from.
    """

    def __init__(self, graph: LayerGraph):
        self.quantized: list[tuple[Call, ActivationQuantizer, Any]] = []
        self._graph = graph
        self._folded, self._taken_up = folded_layers(graph)
        self._begun: dict[int, Affine] = {}
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
            return identity
        inner = self._fake_quantize(call, getattr(operation, "inner_quantizer", None))
        if id(call) in self._folded:
            return folded_layer(operation, self._folded[id(call)], inner)
        if isinstance(operation, ActivationQuantizeWrapper) and operation.gate_quantizer is not None:
            gate = self._fake_quantize(call, operation.gate_quantizer)
            return lambda x, **kwargs: x * gate(keras.ops.sigmoid(x))
        if (affine := self._affine(call)) is not None:
            if self._is_continued(call):
                self._begun[id(call)] = affine
                return _argument(call, identity)
            return _argument(call, scaled(affine))
        if _is_plain_reshape(call):
            step: Step = _reshape(call.outputs[0].shape)
        else:
            step = (
                constant_layer(inner_layer(operation), constant_values(operation), inner)
                if call.is_layer
                else operation
            )
        if _is_joining(call) and (shared := _shared_quantizer(self._graph, call)) is not None:
            # The runtime joins integers as they are, so the parts need the scale of the whole.
            return _joined(step, fake_quantize(shared), [quantizer_of(t) is not None for t in call.inputs])
        if _is_moving(call) and (moved := quantizer_of(call.inputs[0])) is not None:
            # Else the converter may give what is moved the integers of what reads it.
            quantize = fake_quantize(moved)
            return lambda *args, **kwargs: quantize(step(*args, **kwargs))
        if _is_taken_in(self._graph, call) and quantizer_of(call.inputs[0]) is not None:
            # Else nothing would be rounded in between, and a pooling would have two scales.
            copy = rescaled(call.inputs[0])
            return lambda x, **kwargs: step(copy(x), **kwargs)
        return step

    def _affine(self, call: Call) -> Affine | None:
        """What is done to the channels of integers by `call`, and by those before it that it goes on from."""
        affine = read_affine(call)
        if affine is None or quantizer_of(call.inputs[0]) is not None:
            return affine
        before = self._begun.get(id(call.inputs[0].producer))
        return None if before is None else before.then(affine)

    def _is_continued(self, call: Call) -> bool:
        """Whether the only call that reads what `call` gives, which is not quantized, does the like to its channels."""
        reader = self._graph.only_reader(call.outputs[0])
        if reader is None or activation_quantizers(call.operation):
            return False
        return read_affine(reader) is not None and not any(getattr(reader.operation, "input_quantizers", []))

    def _fake_quantize(self, call: Call, quantizer: ActivationQuantizer | None) -> Step:
        return identity if quantizer is None else self._recorded(call, quantizer, fake_quantize(quantizer))

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
            return self._recorded(call, quantizer, identity)
        quantize, copy = self._fake_quantize(call, quantizer), rescaled(tensor)
        return lambda x, **kwargs: quantize(copy(x))


def _argument(call: Call, step: Step) -> Step:
    """`step` of the one tensor among the arguments of `call`."""
    position = next((i for i, x in enumerate(call.args) if x is call.inputs[0]), 0)
    return lambda *args, **kwargs: step(args[position])


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
    return Trait.MOVES_DATA in traits(_unwrapped(call)) and len(call.inputs) == len(call.outputs) == 1


def _is_joining(call: Call) -> bool:
    return Trait.JOINS in traits(_unwrapped(call))


def _shared_quantizer(graph: LayerGraph, call: Call) -> ActivationQuantizer | None:
    """The quantizer of what `call` joins, which may be joined again, or moved, before it is quantized."""
    quantizers = activation_quantizers(call.operation)
    if quantizers:
        return quantizers[-1] if quantizers[-1] is getattr(call.operation, "output_quantizer", quantizers[-1]) else None
    reader = graph.only_reader(call.outputs[0])
    if reader is None:
        return None
    if isinstance(reader.operation, ActivationQuantizer):
        return reader.operation
    inputs = getattr(reader.operation, "input_quantizers", [])
    if any(inputs):
        return inputs[reader.inputs.index(call.outputs[0])]
    return _shared_quantizer(graph, reader) if _is_moving(reader) or _is_joining(reader) else None


def _is_taken_in(graph: LayerGraph, call: Call) -> bool:
    """Whether the converter computes an activation within the kernel that gives what it reads."""
    activation = activation_of(inner_layer(call.operation))
    if activation not in FUSION.activations:
        return False
    source: Call | None = call
    while source is not None and (source is call or _is_transparent(source)):
        (tensor,) = source.inputs
        readers = graph.consumers(tensor)
        # Of several activations of the same tensor that are equal the converter makes one.
        equal = all(activation_of(inner_layer(reader.operation)) is activation for reader in readers)
        alone = equal if source is call else len(readers) == 1
        if not alone or graph.is_output(tensor):
            return False
        source = tensor.producer
    if source is None:
        return False
    source = _unwrapped(source)
    moves = Trait.MOVES_DATA in traits(source) and not is_one_of(source, _POOLING)
    return not moves and not is_one_of(source, _NOT_ACTIVATED)


def _unwrapped(call: Call) -> Call:
    return replace(call, operation=inner_layer(call.operation))


def _is_transparent(call: Call) -> bool:
    return isinstance(call.operation, ActivationQuantizer) or is_identity(call)


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
