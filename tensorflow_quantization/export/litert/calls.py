"""What the converter does with the calls of a quantized model: which move integers, join them, or are fused."""

from __future__ import annotations

from dataclasses import replace

from tensorflow_quantization.export.litert.affine import inner_layer
from tensorflow_quantization.export.litert.own_code import code_moves
from tensorflow_quantization.model.activations import Activation, activation_of
from tensorflow_quantization.model.fusion import is_identity
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.op_traits import Trait, is_one_of, traits
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.targets.litert import FUSION, RULES
from tensorflow_quantization.wrappers import activation_quantizers

#: Operators that cannot fuse an activation, besides most operators that move data.
_NOT_ACTIVATED = ("Concatenate", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "UpSampling2D")
#: Operations of `keras.ops` whose outputs have the integers of their input in LiteRT, besides those that move data.
_KEEPING_VALUES = ("Amax", "Amin", "BroadcastTo", "Flip", "Max", "MaxPool", "Min", "Roll", "Take", "Tile")
#: If others read the output, too, the converter lets a second operator compute these with the activation.
_COMPUTED_AGAIN = ("Dense",)
#: The only operators that move data and can fuse an activation.
_POOLING = ("MaxPooling1D", "MaxPooling2D")


def quantizer_of(tensor: Tensor) -> ActivationQuantizer | None:
    """The quantizer of `tensor`, or of the tensor whose elements it moves; `None` if it is not quantized."""
    call = tensor.producer
    if call is None:
        return None
    if isinstance(call.operation, ActivationQuantizer):
        return call.operation
    own = getattr(call.operation, "output_quantizer", None)
    return quantizer_of(call.inputs[0]) if own is None and is_moving(call) else own


def is_moving(call: Call) -> bool:
    """Whether every value of the outputs is a value of the only input, or zero."""
    if len(call.inputs) != 1:
        return False
    inner = inner_call(call)
    return Trait.MOVES_DATA in traits(inner) or is_one_of(inner, _KEEPING_VALUES) or code_moves(call)


def is_of_a_kernel(fixed: tuple[float, float] | None) -> bool:
    """Whether a scale that is not of the data is the only one that a kernel writes, so that the converter keeps it."""
    return fixed is not None and fixed != RULES.fixed_ranges[Activation.HARD_SIGMOID]


def is_joining(call: Call) -> bool:
    """Whether a call joins tensors, or selects between them."""
    return bool(traits(inner_call(call)) & (Trait.JOINS | Trait.SELECTS))


def output_quantizer_of(graph: LayerGraph, call: Call) -> ActivationQuantizer | None:
    """The quantizer of the output of a call: its own, or the only reader."""
    if (own := getattr(call.operation, "output_quantizer", None)) is not None:
        return own
    reader = graph.only_reader(call.outputs[0])
    return reader.operation if reader is not None and isinstance(reader.operation, ActivationQuantizer) else None


def shared_quantizer(graph: LayerGraph, call: Call) -> ActivationQuantizer | None:
    """The quantizer of the output of a concatenation. Other concatenations and moves may be before it."""
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
    return shared_quantizer(graph, reader) if is_moving(reader) or is_joining(reader) else None


def is_taken_in(graph: LayerGraph, call: Call) -> bool:
    """Whether the converter fuses the activation of `call` into the operator before it."""
    activation = activation_of(inner_layer(call.operation))
    if activation not in FUSION.activations:
        return False
    source: Call | None = call
    alone = True
    while source is not None and (source is call or _is_transparent(source)):
        (tensor,) = source.inputs
        readers = graph.consumers(tensor)
        # The converter merges equal activations of the same tensor.
        equal = all(activation_of(inner_layer(reader.operation)) is activation for reader in readers)
        alone &= (equal if source is call else len(readers) == 1) and not graph.is_output(tensor)
        source = tensor.producer
    if source is None:
        return False
    source = inner_call(source)
    if not alone and not is_one_of(source, _COMPUTED_AGAIN):
        return False
    moves = Trait.MOVES_DATA in traits(source) and not is_one_of(source, _POOLING)
    return not moves and not is_one_of(source, _NOT_ACTIVATED)


def inner_call(call: Call) -> Call:
    """`call` of the layer in a wrapper; a call without a wrapper as it is."""
    return replace(call, operation=inner_layer(call.operation))


def _is_transparent(call: Call) -> bool:
    return isinstance(call.operation, ActivationQuantizer) or is_identity(call)
