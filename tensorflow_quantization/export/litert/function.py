"""A quantized Keras model as a TensorFlow function without variables of Keras, with fake-quantization operators.

TensorFlow's converter reads scale and zero point of an activation from `fake_quant_with_min_max_args`. It supports
this operator for kernels in some layouts only, so kernels have no such operator. Instead their values are multiples of
their scales, with 127 as the largest integer of each channel. The converter maps the largest weight of each channel to
127, so it finds the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.affine import Affine, folded_layers, inner_layer, read_affine
from tensorflow_quantization.export.litert.attention import float_values, is_projected, projected_attention
from tensorflow_quantization.export.litert.calls import (
    inner_call,
    is_joining,
    is_moving,
    is_of_a_kernel,
    is_taken_in,
    output_quantizer_of,
    quantizer_of,
    shared_quantizer,
)
from tensorflow_quantization.export.litert.constants import (
    Step,
    constant_layer,
    constant_values,
    fake_quantize,
    folded_layer,
    identity,
    rescaled,
    scaled,
    scaled_channels,
)
from tensorflow_quantization.export.litert.own_code import is_own_code
from tensorflow_quantization.export.litert.recurrence import StoredKernel, is_recurrent, stored_kernels, unrolled
from tensorflow_quantization.export.litert.rewriting import rewritten
from tensorflow_quantization.export.litert.wide import concatenated, in_floats, is_float, is_wide
from tensorflow_quantization.export.names import names_in_signature
from tensorflow_quantization.export.onnx.emission import plain_name
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.interpreter import Interpreter
from tensorflow_quantization.model.keras_internals import hand_on_masks, keras_mask
from tensorflow_quantization.model.mask_numbers import mask_numbers, masks
from tensorflow_quantization.model.op_traits import Trait, is_one_of, traits
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.text.messages import what_is_wrong
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, activation_quantizers
from tensorflow_quantization.wrappers.attention import AttentionBaseQuantizeWrapper
from tensorflow_quantization.wrappers.layers import ActivationQuantizeWrapper
from tensorflow_quantization.wrappers.queries import weight_quantizers_in


@dataclass(frozen=True)
class Function:
    """A model as input of TensorFlow's converter.

    Attributes:
        concrete: a concrete function. Its inputs have the order and names of the model's inputs. Its results are
            named as `names_in_signature` says, and `quantized_0`, `quantized_1`, ... if they are exposed.
        quantized: the call and the quantizer of each quantized tensor, in the order of `quantized_0`, ....
        paths: the path of each call by its name scope in `concrete`.
        variables: the kernels. `concrete` does not keep them alive.
        wide: whether activations have 16 bits.
        stored: the kernels that the file stores as integers, and LiteRT multiplies as floats.
    """

    concrete: Any
    quantized: list[tuple[Call, ActivationQuantizer]]
    paths: dict[str, str]
    variables: list[Any]
    wide: bool
    stored: list[StoredKernel]


def make_function(graph: LayerGraph, io_dtype: str = "float32", expose: bool = False) -> Function:
    """The TensorFlow function of a quantized model.

    Args:
        graph: the flat graph of the model.
        io_dtype: of the inputs and outputs of the file, as in `export_litert`. Default: "float32".
        expose: whether the output of each activation quantizer is a result too. Default: `False`.

    Raises:
        ExportError: TensorFlow cannot trace a layer; the message names the layer.
    """
    import tensorflow as tf

    # Read weights and ranges before the trace: variables have no values in it.
    steps = _Steps(graph)
    quantized: list[tuple[Call, ActivationQuantizer]] = []
    names = names_in_signature(graph)

    def compute(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with tf.name_scope(_scope(call)):
            try:
                outputs = steps[call](*args, **kwargs)
                for tensor, output in zip(call.outputs, tree.flatten(outputs), strict=True):
                    if output.shape.rank is None:  # as after `tf.numpy_function`: layers ask for the rank
                        output.set_shape(tensor.shape)
                for layer in (inner_layer(call.operation), call.operation) if call.is_layer and args else ():
                    hand_on_masks(layer, args[0], outputs)
                return outputs
            except Exception as error:
                name = type(inner_layer(call.operation)).__name__
                raise ExportError(
                    f"TensorFlow cannot compute layer {call.path!r} ({name}) in a function: {what_is_wrong(error)} "
                    "If a size is unknown, give the model a keras.Input with this size."
                ) from error

    def run(*inputs):
        steps.quantized.clear()
        outputs = tree.flatten(Interpreter(graph).run(inputs, compute))
        if io_dtype == "float32":
            outputs = [_copied(y) if any(y is x for x in inputs) else y for y in outputs]
        results = {name: tf.identity(y) for name, y in zip(names, outputs, strict=True)}
        quantized[:] = [(call, quantizer) for call, quantizer, _ in steps.quantized]
        if expose:
            results.update((f"quantized_{i}", tf.identity(y)) for i, (_, _, y) in enumerate(steps.quantized))
        return results

    signature = [tf.TensorSpec(t.shape, t.dtype, plain_name(t.name)) for t in graph.inputs]
    with unrolled(graph), float_values(graph):
        concrete = tf.function(run, autograph=False).get_concrete_function(*signature)
    paths = {_scope(call): call.path for call in graph.calls}
    return Function(concrete, quantized, paths, list(concrete.variables), is_wide(graph), stored_kernels(graph))


def _scope(call: Call) -> str:
    """The name of a call as TensorFlow takes it for a scope: Keras calls a layer of class `_Points` "__points"."""
    name = plain_name(call.path)
    return name if name[0].isascii() and name[0].isalnum() else f"layer{name}"


class _Steps:
    """A function for each call of a graph, with its weights and ranges computed in advance.

    Attributes:
        quantized: call, quantizer and tensor of each quantized tensor. Tracing the functions fills this list.
    """

    def __init__(self, graph: LayerGraph):
        self.quantized: list[tuple[Call, ActivationQuantizer, Any]] = []
        self._graph = graph
        self._folded, self._taken_up = folded_layers(graph)
        self._wide = is_wide(graph)
        self._masked = mask_numbers(graph)
        self._begun: dict[int, Affine] = {}
        self._steps = {id(call): self._step(call) for call in graph.calls}

    def __getitem__(self, call: Call) -> Step:
        return self._steps[id(call)]

    def _step(self, call: Call) -> Step:
        operation = call.operation
        if isinstance(operation, ActivationQuantizer):
            return self._requantize(call, call.inputs[0], operation)
        if not isinstance(operation, BaseQuantizeWrapper):
            return self._inner_step(call)
        if isinstance(operation, AttentionBaseQuantizeWrapper):
            output = self._fake_quantize(call, operation.output_quantizer)
            others = [identity] * (len(call.outputs) - 1)  # the scores, if the layer returns them
            attend = self._projected_attention(call) if is_projected(operation) else self._inner_step(call)
            return lambda *args, **kwargs: _each([output, *others], attend(*args, **kwargs))
        inputs = self._input_steps(call)
        inner = self._inner_step(call)
        moved = quantizer_of(call.inputs[0]) if is_moving(call) else None
        output = self._quantize_after(moved, call, call.outputs[0], operation.output_quantizer)

        def step(x, *args, **kwargs):
            flat = [quantize(value) for quantize, value in zip(inputs, tree.flatten(x), strict=True)]
            return output(inner(tree.pack_sequence_as(x, flat), *args, **kwargs))

        return step

    def _input_steps(self, call: Call) -> list[Step]:
        """What quantizes each input of a wrapped layer; nothing for the states of a recurrent layer."""
        pairs = zip(call.operands, call.operation.input_quantizers, strict=False)
        return [self._requantize(call, tensor, quantizer) for tensor, quantizer in pairs]

    def _projected_attention(self, call: Call) -> Step:
        def quantize(quantizer: ActivationQuantizer | None) -> Step:
            return self._fake_quantize(call, quantizer)

        folded = self._folded.get(id(call))
        return projected_attention(call.operation, self._input_steps(call), quantize, folded)

    def _inner_step(self, call: Call) -> Step:
        """The function of an operation or of the layer in a wrapper, with quantized kernels."""
        operation = call.operation
        if id(call) in self._taken_up:
            return _argument(call, identity)
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
            return _argument(call, scaled_channels(affine) if self._wide else scaled(affine))
        if (other := rewritten(inner_call(call), output_quantizer_of(self._graph, call))) is not None:
            step: Step = other
        elif _is_plain_reshape(call):
            step = _reshape(call.outputs[0].shape)
        else:
            step = (
                constant_layer(inner_layer(operation), constant_values(operation), inner, _keeps_floats(call))
                if call.is_layer
                else operation
            )
        if self._wide and (sum_of_parts := concatenated(self._graph, call)):
            return sum_of_parts
        if self._wide and is_float(call):
            step = in_floats(step)
            if not is_moving(call):
                return step
        if masks(inner_call(call), self._masked):
            # The converter would give a selection the scale of its scores, and a softmax after it integers.
            return in_floats(step)
        if is_joining(call) and (shared := shared_quantizer(self._graph, call)) is not None:
            # LiteRT concatenates integers without rescaling, so the parts need the scale of the output.
            quantize = fake_quantize(shared)
            return _joined(step, call, [self._part(tensor, quantize, shared) for tensor in call.inputs], quantize)
        if is_moving(call) and (moved := quantizer_of(call.inputs[0])) is not None:
            # Without this quantizer, the converter may use the scale of the reader for the moved tensor.
            quantize = fake_quantize(moved)
            return lambda *args, **kwargs: tree.map_structure(quantize, step(*args, **kwargs))
        if is_recurrent(call):
            # Without the copies, the converter would give the selections by a mask, and so the states of each step, the
            # scale of the output.
            copies = [rescaled(tensor) for tensor in call.outputs]
            return lambda *args, **kwargs: _each(copies, step(*args, **kwargs))
        if is_own_code(call):
            # Without the copies, LiteRT would not round before an activation in it.
            return _joined(step, call, [rescaled(x) if quantizer_of(x) else identity for x in call.inputs])
        if is_taken_in(self._graph, call) and quantizer_of(call.inputs[0]) is not None:
            # Without the copy, LiteRT would not round before the activation, and a pooling would need two scales.
            copy = rescaled(call.inputs[0])
            return lambda x, **kwargs: step(copy(x), **kwargs)
        return step

    def _part(
        self, tensor: Tensor, quantize: Callable[[Any], Any], shared: ActivationQuantizer
    ) -> Callable[[Any], Any]:
        """How a tensor gets the scale of the concatenation that reads it."""
        own = quantizer_of(tensor)
        if own is None:
            return quantize
        others = [
            shared_quantizer(self._graph, reader) if is_joining(reader) else None
            for reader in self._graph.consumers(tensor)
        ]
        first, second, *rest = (None if q is None else q.parameters() for q in (own, shared, *others))
        if first == second:
            return identity
        # Without the copy, the kernel before would round to the shared scale alone, not to its own before; and between
        # the parts from which Keras selects by a mask, the converter would requantize several times. Of other parts,
        # the converter requantizes each once.
        copy, is_alone = rescaled(tensor), not is_of_a_kernel(own.scheme.fixed) and all(x == second for x in rest)
        return lambda x: quantize(copy(x)) if is_alone or keras_mask(x) is not None else x

    def _affine(self, call: Call) -> Affine | None:
        """Factor and shift of `call`, and of the calls before it in the same chain, on a quantized tensor."""
        affine = read_affine(call)
        if affine is None or quantizer_of(call.inputs[0]) is not None:
            return affine
        before = self._begun.get(id(call.inputs[0].producer))
        return None if before is None else before.then(affine)

    def _is_continued(self, call: Call) -> bool:
        """Whether the output of `call` is not quantized and its only reader is the next step of the chain."""
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
        """Quantize `tensor`, which may be quantized with another scale, for an input of `call`."""
        return self._quantize_after(quantizer_of(tensor), call, tensor, quantizer)

    def _quantize_after(
        self, before: ActivationQuantizer | None, call: Call, tensor: Tensor, quantizer: ActivationQuantizer | None
    ) -> Step:
        """Quantize `tensor`, an input or output of `call` that has the scale of `before`.

        Between two consecutive quantizers, the converter inserts a requantize operator whose kernel is less exact, or
        it fails if there are several readers, or drops the second.
        """
        if quantizer is None or before is None:
            return self._fake_quantize(call, quantizer)
        if before.parameters() == quantizer.parameters():
            return self._recorded(call, quantizer, identity)
        quantize, copy = self._fake_quantize(call, quantizer), rescaled(tensor)
        return lambda x, **kwargs: quantize(copy(x))


def _keeps_floats(call: Call) -> bool:
    """Whether the converter would round the kernels of a layer, which are floats in Keras."""
    inner = inner_call(call)
    if is_one_of(inner, ("Conv1DTranspose",)) and None in call.inputs[0].shape[1:]:
        return True  # its integers would be multiplied by floats, without their scales
    multiplies = Trait.MULTIPLIES_BY_WEIGHTS in traits(inner) and Trait.PROJECTS not in traits(inner)
    if not multiplies or weight_quantizers_in(call.operation):
        return False
    reads_integers = any(map(quantizer_of, call.inputs)) or any(getattr(call.operation, "input_quantizers", []))
    return reads_integers or is_one_of(inner, ("Conv1DTranspose", "Conv2DTranspose"))


def _copied(x: Any) -> Any:
    """An input that the model returns, by an operator: of an identity, the converter would return the integers."""
    import tensorflow as tf

    return tf.maximum(x, -np.float32(np.inf)) if x.dtype.is_floating else x


def _argument(call: Call, step: Step) -> Step:
    """`step` as a function of the arguments of `call`, one of which is a tensor."""
    position = next((i for i, x in enumerate(call.args) if x is call.inputs[0]), 0)
    return lambda *args, **kwargs: step(args[position])


def _is_plain_reshape(call: Call) -> bool:
    layer = inner_layer(call.operation)
    plain = isinstance(layer, keras.layers.Reshape) or (
        isinstance(layer, keras.layers.Flatten) and layer.data_format == "channels_last"
    )
    return plain and None not in call.outputs[0].shape[1:]


def _reshape(shape: tuple[int | None, ...]) -> Step:
    """A Reshape to a known shape. Keras would compute the shape from the input at run time."""
    return lambda x, **kwargs: keras.ops.reshape(x, (-1, *shape[1:]))


def _each(functions: list[Step], outputs: Any) -> Any:
    """The outputs of a call, each after a function."""
    flat = [function(y) for function, y in zip(functions, tree.flatten(outputs), strict=True)]
    return tree.pack_sequence_as(outputs, flat)


def _joined(step: Step, call: Call, parts: list[Step], constant: Step = identity) -> Step:
    """`step` after its float tensors went through a function each, and its arrays of constants through `constant`."""
    functions = {id(tensor): function for tensor, function in zip(call.inputs, parts, strict=True)}

    def part(source, x):
        if not keras.ops.is_tensor(x) and not isinstance(x, np.ndarray):
            return x
        function = functions[id(source)] if isinstance(source, Tensor) else constant
        return function(x) if keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)) else x

    def joined(*args, **kwargs):
        return step(*tree.map_structure(part, call.args, args), **kwargs)

    return joined
