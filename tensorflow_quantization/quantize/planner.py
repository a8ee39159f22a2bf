"""`make_plan`: decide on every layer of a model from the user's spec, the cases and the target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import keras

from tensorflow_quantization.model.activations import activation_of
from tensorflow_quantization.model.fusion import folded_into
from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor
from tensorflow_quantization.model.keras_classes import is_of_keras, is_of_package
from tensorflow_quantization.model.op_traits import Trait, factors, traits
from tensorflow_quantization.model.own_weights import OwnWeight
from tensorflow_quantization.quantize.plan import LayerPlan, QuantizationPlan
from tensorflow_quantization.quantize.shared_tensors import SharedTensors, is_off, settle
from tensorflow_quantization.quantize.spec import LayerConfig, QuantizationSpec, SpecIndex
from tensorflow_quantization.quantize.unknown_names import warn_of_unknown_names
from tensorflow_quantization.quantize.weight_blocks import WeightBlocks
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.scheme import WIDE_BITS
from tensorflow_quantization.targets import Placement, Target
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.text.warn import warn_user
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, NonWeightedBaseQuantizeWrapper, find_wrapper
from tensorflow_quantization.wrappers.attention import AttentionBaseQuantizeWrapper
from tensorflow_quantization.wrappers.recurrent import RecurrentBaseQuantizeWrapper

FULL, PARTIAL = "full", "partial"


def make_plan(
    graph: LayerGraph,
    *,
    target: Target,
    mode: str = FULL,
    spec: QuantizationSpec | None = None,
    case_specs: Iterable[tuple[str, QuantizationSpec]] = (),
    activation_scheme: QuantizationScheme = QuantizationScheme(),
    weight_scheme: QuantizationScheme = QuantizationScheme(),
    factor_scheme: QuantizationScheme | None = None,
    weight_blocks: WeightBlocks | None = None,
    reasons: Mapping[str, Reason] = MappingProxyType({}),
) -> QuantizationPlan:
    """Decide on every layer of a flat graph.

    For each layer the first of these sources that has an answer decides: the user's entries by name, the user's
    entries by class, the cases (the last listed first) and, in full mode only, the target's placement.

    Args:
        graph: a flattened `LayerGraph`.
        target: the runtime whose placement applies in full mode.
        mode: "full" or "partial".
        spec: the user's spec; `None`: no entries.
        case_specs: pairs of a case's name and the spec that it returned, in the user's order.
        activation_scheme, weight_scheme: the integers where no entry sets the bits.
        factor_scheme: the integers of operands of a matrix product of two activations; `None`: `activation_scheme`.
        weight_blocks: what is asked about weights in blocks; `None`: only entries ask for them.
        reasons: by path, reasons that are known before planning, of blocks that stay closed for example. They replace
            the planner's reason for layers that are not quantized.

    Returns:
        The plan, with one decision for each layer and each quantized model input.

    Raises:
        ValueError: an entry names a layer that cannot be wrapped or have blocks, or an input that the layer does not
            have; or the target, or FP8, cannot compute with the bits or blocks of a layer.
    """
    spec = spec or QuantizationSpec()
    warn_of_unknown_names(spec, graph)
    wishes = _Wishes(spec, list(case_specs), weight_blocks or WeightBlocks(target))
    placed = {} if mode == PARTIAL else target.place(graph, wishes.switched_off)
    shared = settle(graph, target, placed, wishes.find, activation_scheme.bits, only_named=mode == PARTIAL)
    plain = LayerPlan(
        "",
        "",
        activation_scheme=activation_scheme,
        weight_scheme=weight_scheme,
        factor_scheme=factor_scheme or activation_scheme,
        target=target.name,
    )
    layers = {}
    for tensor in graph.inputs:
        if (placement := shared.placements.get(tensor.name)) is not None:
            layer = replace(plain, path=tensor.name, class_name="InputLayer")
            layer = replace(layer, placement=placement, reason=_target_reason(placement))
            layers[tensor.name] = _shared(layer, shared)
    for call in graph.calls:
        if call.path not in layers:  # a shared layer has one wrapper, and so one decision
            layer = replace(plain, path=call.path, class_name=call.class_name)
            layer = _decide(graph, call, layer, wishes, shared, mode, target, layers)
            if layer.quantized and (note := wishes.why_no_blocks(call)) is not None:
                layer = replace(layer, reason=replace(layer.reason, text=f"{layer.reason}; no blocks: {note}"))
            layers[call.path] = _shared(layer, shared)
            if call.path in reasons and not layers[call.path].quantized:
                layers[call.path] = replace(layers[call.path], reason=reasons[call.path])
    _check_bits(layers.values(), target)
    return QuantizationPlan(layers)


def _check_bits(layers: Iterable[LayerPlan], target: Target) -> None:
    """Refuse numbers of bits that the runtime cannot compute with.

    Raises:
        ValueError: a layer has them.
    """
    if target.bits is None:
        return
    wrong = [(layer, bits) for layer in layers if (bits := sorted(layer.bits - target.bits))]
    if wrong:
        rows = "\n".join(f"  {layer.path}: {', '.join(map(str, bits))} bits" for layer, bits in wrong)
        able = ", ".join(map(str, sorted(target.bits)))
        raise ValueError(
            f"Target {target.name!r} computes in {able} bits only. Change the bits of quantize_model or of the entries "
            f"of the QuantizationSpec for these layers, or choose another target:\n{rows}"
        )


class _Wishes:
    """The entries for each layer: by the user, by name or class, by cases, and for weights in blocks."""

    def __init__(self, spec: QuantizationSpec, case_specs: list[tuple[str, QuantizationSpec]], blocks: WeightBlocks):
        self.spec = SpecIndex(spec)
        self.case_specs = [(name, SpecIndex(asked)) for name, asked in reversed(case_specs)]
        self.blocks = blocks

    def find(self, what: Call | Tensor) -> tuple[LayerConfig | None, str]:
        """The entry that decides on the layer of a call or on a model input, and its source as text."""
        found = self._asked(what)
        return self.blocks.settle(what, *found) if isinstance(what, Call) and what.is_layer else found

    def why_no_blocks(self, call: Call) -> str | None:
        """Why a layer has no blocks, although they are asked for; `None`: it has them, or nobody asks."""
        return self.blocks.note(call, self._asked(call)[0]) if call.is_layer else None

    def _asked(self, what: Call | Tensor) -> tuple[LayerConfig | None, str]:
        """What the user or a case asks, and the source as text."""
        if isinstance(what, Call) and not what.is_layer:
            return None, ""
        entry = _entry(self.spec, what)
        of_cases = ((name, _entry(asked, what)) for name, asked in self.case_specs)
        case, by_case = next(((name, found) for name, found in of_cases if found is not None), ("", None))
        if entry is None:
            return by_case, case
        source = f"{'class' if entry.is_keras_class else 'name'} {entry.name!r} in the spec"
        differs = by_case is not None and replace(by_case, name="", is_keras_class=False) != replace(
            entry, name="", is_keras_class=False
        )
        return entry, f"{source}, which overrides {case}" if differs else source

    def switched_off(self, call: Call) -> bool:
        """Whether an entry turns the quantization of the inputs of `call` off."""
        entry, _ = self.find(call)
        return entry is not None and not entry.quantize_input and entry.quantization_index is None


def _entry(index: SpecIndex, what: Call | Tensor) -> LayerConfig | None:
    """The entry of a spec for the layer of a call, or for a model input: patterns are for layers only."""
    if isinstance(what, Call):
        return index.find(what.name, what.class_names_in_spec, what.path)
    entry = index.find(what.name, ("InputLayer",))
    return None if entry is not None and entry.is_pattern else entry


def _shared(layer: LayerPlan, shared: SharedTensors) -> LayerPlan:
    """The decision with what the entries of other layers change about its output."""
    note = shared.notes.get(layer.path)
    if note is not None and note != layer.reason.text:
        layer = replace(layer, reason=replace(layer.reason, text=f"{layer.reason}; {note}"))
    return replace(layer, output_bits=shared.bits.get(layer.path))


def _decide(
    graph: LayerGraph,
    call: Call,
    layer: LayerPlan,
    wishes: _Wishes,
    shared: SharedTensors,
    mode: str,
    target: Target,
    decided: Mapping[str, LayerPlan],
) -> LayerPlan:
    placed = shared.placements.get(call.path, Placement())
    entry, source = wishes.find(call)
    wrapper = find_wrapper(call.operation) if call.is_layer else None
    if wrapper is not None and issubclass(wrapper, RecurrentBaseQuantizeWrapper) and not target.recurrent_weights:
        wrapper = None
    takes_one_input = len(call.arguments) < 2
    if entry is not None:
        named = wrapper or NonWeightedBaseQuantizeWrapper
        wished = _wished(call, entry, named, placed, shared, target)
        if wished and wrapper is None and not takes_one_input:
            raise ValueError(_needs_wrapper(call))
        reason = _wished_reason(call, entry, wished, source)
        if wished and entry.quantize_weight and _keeps_float_weights(call, named):
            warn_user(
                f"Layer {call.path!r} ({call.class_name}) is named to be quantized, but only its inputs are: for "
                f"target {target.name!r}, the weights of a {call.class_name} stay float. "
                "quantize_weight=False in the entry silences this warning."
            )
            reason = replace(reason, text=f"{source}; only its inputs: its weights stay float")
        elif entry.block_size:
            reason = Reason(ReasonCode.STORED_IN_INTEGERS, f"{source}; computed in float")
        elif wished.weights and issubclass(named, RecurrentBaseQuantizeWrapper) and target.why_not is not None:
            reason = replace(reason, text=f"{source}; {target.why_not(graph, call)}")
        if entry.weight_bits is not None and not wished.weights and entry.name in (call.name, call.path):
            raise ValueError(
                f"The entry {entry.name!r} has weight_bits={entry.weight_bits}, but no weights of layer {call.path!r} "
                f"({call.class_name}) are quantized. Leave it out; activation_bits is for what the layer reads."
            )
        layer = _with_bits(layer, entry, wishes.blocks)
        return replace(layer, placement=wished, reason=reason, wrapper=named if wished else None)
    if placed:
        if not call.is_layer or (wrapper is None and not takes_one_input):
            return replace(layer, placement=placed, reason=_target_reason(placed))  # no wrapper: a quantizer follows it
        floats = _only_floats(call, placed)
        reason = _target_reason(placed) if floats else _not_float(call)
        return replace(layer, placement=floats, reason=reason, wrapper=wrapper or NonWeightedBaseQuantizeWrapper)
    undecided = placed.reason is None or placed.reason.code is ReasonCode.OFF_BY_DEFAULT
    if wrapper is not None and undecided and mode != PARTIAL and not is_of_package(wrapper):
        entry = LayerConfig(call.name)
        wished = _wished(call, entry, wrapper, placed, shared, target)
        reason = _wished_reason(call, entry, wished, f"your {wrapper.__name__}")
        return replace(layer, placement=wished, reason=reason, wrapper=wrapper)
    if isinstance(call.operation, OwnWeight):
        return replace(layer, reason=Reason(ReasonCode.OWN_WEIGHT, "a weight that the code of the layer reads"))
    if (product := folded_into(graph, call)) is not None:
        return replace(layer, reason=_folded(decided[product.path]))
    if placed.reason:
        return replace(layer, reason=_target_reason(placed))
    if mode != PARTIAL and wrapper is None and call.is_layer and not _is_of_keras(call):
        return replace(layer, reason=_own_class(call))
    if mode != PARTIAL and target.why_not is not None:
        reason = target.why_not(graph, call)
        if reason.code is ReasonCode.MOVES_DATA and not shared.is_quantized(call.inputs[0]):
            reason = replace(reason, text="moves floats")
        return replace(layer, reason=reason)
    return replace(layer, reason=_why_not(call, wrapper, mode))


def _folded(product: LayerPlan) -> Reason:
    """The reason of a normalization whose constants the weights of `product` could take."""
    if product.output:
        return Reason(ReasonCode.NO_INTEGER_KERNEL, f"not folded: the output of {product.path} is quantized")
    return Reason(ReasonCode.FUSED, f"folded into {product.path}")


def _target_reason(placed: Placement) -> Reason:
    return placed.reason or Reason(ReasonCode.DEFAULT, "")


def _needs_wrapper(call: Call) -> str:
    return (
        f"Layer {call.path!r} ({call.class_name}) is named to be quantized, but takes {', '.join(call.arguments)}. "
        "Without its own wrapper class, a layer can take only one argument: a tensor or a list of tensors. Write a "
        f"{call.class_name}QuantizeWrapper, or remove the entry from the spec."
    )


def _why_not(call: Call, wrapper: type[BaseQuantizeWrapper] | None, mode: str) -> Reason:
    if not call.is_layer:
        return Reason(ReasonCode.NOT_A_LAYER, "a keras.ops operation, not a layer")
    if mode == PARTIAL:
        return Reason(ReasonCode.NOT_NAMED, "not named (partial mode)")
    if wrapper is None:
        return Reason(ReasonCode.NO_WRAPPER, f"no quantize wrapper for {call.class_name}")
    return Reason(ReasonCode.OFF_BY_DEFAULT, "off by default: name the layer or its class in a QuantizationSpec")


def _is_of_keras(call: Call) -> bool:
    """Whether the class of a layer is of Keras."""
    return is_of_keras(type(call.operation)) or is_of_package(type(call.operation))


def _own_class(call: Call) -> Reason:
    text = f"no quantize wrapper for {call.class_name}: write a {call.class_name}QuantizeWrapper"
    return Reason(ReasonCode.NO_WRAPPER, f"{text}, or name the layer to quantize its inputs")


def _not_float(call: Call) -> Reason:
    return Reason(ReasonCode.NOT_FLOAT, f"its input is {call.inputs[0].dtype}, not float")


def _only_floats(call: Call, placement: Placement) -> Placement:
    floating = _floating(call)
    if not set(placement.inputs) <= set(floating):
        return replace(placement, inputs=tuple(i for i in placement.inputs if i in floating))
    return placement


def _floating(call: Call) -> list[int]:
    return [i for i, tensor in enumerate(call.operands) if keras.backend.is_float_dtype(tensor.dtype)]


def _wished(
    call: Call,
    entry: LayerConfig,
    wrapper: type[BaseQuantizeWrapper],
    placed: Placement,
    shared: SharedTensors,
    target: Target,
) -> Placement:
    """The placement that an entry asks for, limited to the inputs and weights that the layer has."""
    floating = _floating(call)
    if issubclass(wrapper, RecurrentBaseQuantizeWrapper):
        floating = [i for i in floating if i == 0]  # the states stay float
        if entry.quantize_output and len(call.outputs) > 1:
            raise ValueError(
                f"Layer {call.path!r} has {len(call.outputs)} outputs, and quantize_output=True is for layers with one "
                f"output. Remove it from the entry {entry.name!r}."
            )
    if entry.quantization_index is not None:
        _check_indices(call, entry, 1 if issubclass(wrapper, RecurrentBaseQuantizeWrapper) else len(call.operands))
        inputs = [i for i in floating if i in entry.quantization_index]
    else:
        inputs = [i for i in floating if i in factors(call)] if entry.quantize_input else []
    # A tensor that is quantized where it is computed needs no second quantizer here, unless the target places one.
    inputs = [i for i in inputs if i in placed.inputs or shared.needs_quantizer(call.operands[i])]
    weights = entry.quantize_weight and not issubclass(wrapper, NonWeightedBaseQuantizeWrapper)
    output = placed.output or entry.quantize_output
    if target.joins_with_one_scale and Trait.JOINS in traits(call) and len(inputs) == len(call.operands) > 0:
        inputs, output = [], True
    placement = replace(placed, inputs=tuple(inputs), weights=weights, output=output)
    if issubclass(wrapper, AttentionBaseQuantizeWrapper):
        # Where the target quantizes the projections, the products stay in float.
        projections = entry.quantize_input and placed.projections
        inner = entry.quantize_input and not placed.projections
        placement = replace(placement, inner_matmuls=inner, projections=projections)
    return placement


def _keeps_float_weights(call: Call, wrapper: type[BaseQuantizeWrapper]) -> bool:
    """Whether a layer has matrices of weights that its wrapper does not quantize, as a recurrent layer has."""
    if not issubclass(wrapper, NonWeightedBaseQuantizeWrapper) or activation_of(call.operation) is not None:
        return False
    return any(len(weight.shape) > 1 for weight in call.operation.trainable_weights)


def _wished_reason(call: Call, entry: LayerConfig, wished: Placement, source: str) -> Reason:
    if wished:
        return Reason(ReasonCode.NAMED, source)
    if call.inputs and not _floating(call):
        return _not_float(call)
    if any(not is_off(entry, index) for index in _floating(call)):
        return Reason(ReasonCode.SHARES_QUANTIZER, f"its input is quantized where it is computed ({source})")
    return Reason(ReasonCode.SWITCHED_OFF, f"switched off ({source})")


def _check_indices(call: Call, entry: LayerConfig, count: int) -> None:
    """Check that a layer has the inputs that an entry names, of the `count` inputs that can be quantized.

    Raises:
        ValueError: it does not, and the entry names this layer. An entry for several layers only warns.
    """
    wrong = [i for i in entry.quantization_index or [] if i >= count]
    if not wrong:
        return
    text = f"Layer {call.path!r} has {count} input(s), so quantization_index {wrong}"
    if entry.name in (call.name, call.path):
        raise ValueError(f"{text} does not exist. Valid indices are 0 to {count - 1}.")
    warn_user(f"{text} of the entry {entry.name!r} is ignored there. Valid indices are 0 to {count - 1}.")


def _with_bits(layer: LayerPlan, entry: LayerConfig, blocks: WeightBlocks) -> LayerPlan:
    asked = [
        f"{argument}={bits}"
        for argument, bits, scheme in (
            ("weight_bits", entry.weight_bits, layer.weight_scheme),
            ("activation_bits", entry.activation_bits, layer.activation_scheme),
        )
        if scheme.floating and bits not in (None, scheme.bits)
    ]
    if asked:
        raise ValueError(
            f"The entry {entry.name!r} has {' and '.join(asked)} for layer {layer.path!r}, and FP8 has 8 bits. Leave "
            "the bits out, or leave dtype out for integers."
        )
    if entry.activation_bits is not None:
        if layer.activation_scheme.bits == WIDE_BITS:
            raise ValueError(
                f"The entry {entry.name!r} has activation_bits={entry.activation_bits} for layer {layer.path!r}, and "
                f"{WIDE_BITS} bits are for all activations of a model. Leave one of both out."
            )
        activations = replace(layer.activation_scheme, bits=entry.activation_bits)
        factors = replace(layer.factor_scheme, bits=entry.activation_bits)
        layer = replace(layer, activation_scheme=activations, factor_scheme=factors)
    if entry.block_size:
        return replace(layer, weight_scheme=blocks.scheme(entry, layer.weight_scheme, layer.path))
    if entry.weight_bits is not None:
        layer = replace(layer, weight_scheme=replace(layer.weight_scheme, bits=entry.weight_bits))
    return layer
