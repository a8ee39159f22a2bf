"""`QuantizationPlan`: what is quantized, what is not, and the reason for each."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import keras

from tensorflow_quantization.graph import Call, LayerGraph, did_you_mean
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.spec import LayerConfig, QuantizationSpec
from tensorflow_quantization.targets import Target
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, NonWeightedBaseQuantizeWrapper, find_wrapper

FULL, PARTIAL = "full", "partial"


@dataclass(frozen=True)
class LayerPlan:
    """The decision on one layer.

    Attributes:
        path: the layer's name, with those of nested models around it.
        class_name: its class.
        inputs: the indices of the inputs to quantize.
        weights: whether its kernels are quantized.
        reason: why, or why not.
        input_scheme, weight_scheme: the integers, where anything is quantized.
        wrapper: the wrapper class to do it with.
    """

    path: str
    class_name: str
    inputs: tuple[int, ...] = ()
    weights: bool = False
    reason: str = ""
    input_scheme: QuantizationScheme = field(default=QuantizationScheme(), repr=False)
    weight_scheme: QuantizationScheme = field(default=QuantizationScheme(), repr=False)
    wrapper: type[BaseQuantizeWrapper] | None = field(default=None, repr=False)

    @property
    def quantized(self) -> bool:
        return bool(self.inputs) or self.weights

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class QuantizationPlan:
    """The decisions on all layers of a model, by path, in the order of the model's calls."""

    layers: dict[str, LayerPlan]

    def __iter__(self) -> Iterator[LayerPlan]:
        return iter(self.layers.values())

    def __getitem__(self, path: str) -> LayerPlan:
        return self.layers[path]

    def __str__(self) -> str:
        rows = []
        for layer in self:
            what = [f"input {list(layer.inputs)}"] * bool(layer.inputs) + ["weights"] * layer.weights
            rows.append(f"{layer.path} ({layer.class_name}): {' and '.join(what) or 'float'}; {layer.reason}")
        return "\n".join(rows)


def attach_plan(model: keras.Model, plan: QuantizationPlan) -> None:
    """Remember, for `describe`, why each layer of a model was quantized or not."""
    model._quantization_plan = plan


def attached_plan(model: keras.Model) -> QuantizationPlan | None:
    """The plan that `model` was made by; `None` for a model that was loaded from a file."""
    return getattr(model, "_quantization_plan", None)


def make_plan(
    graph: LayerGraph,
    *,
    target: Target,
    mode: str = FULL,
    spec: QuantizationSpec | None = None,
    case_specs: Iterable[tuple[str, QuantizationSpec]] = (),
    input_scheme: QuantizationScheme = QuantizationScheme(),
    weight_scheme: QuantizationScheme = QuantizationScheme(),
) -> QuantizationPlan:
    """Decide on every layer of a flat graph.

    The user's entries by name win over those by class, these over what the cases ask (the case listed last wins), and
    that over the target's table, which counts in full mode only.

    Args:
        graph: a flattened `LayerGraph`.
        target: whose table and rules apply.
        mode: "full" or "partial".
        spec: the user's wishes.
        case_specs: (case name, what it asks), in the user's order.
        input_scheme, weight_scheme: the integers where an entry does not say otherwise.
    """
    spec = spec or QuantizationSpec()
    cases = list(case_specs)
    _warn_of_unknown_names(spec, graph)
    decided: dict[int, LayerPlan] = {}  # a shared layer has one wrapper, and so one decision
    layers = {}
    for call in graph.calls:
        if id(call.operation) not in decided:
            wish, source = _wish(call, spec, cases)
            plan = _decide(call, wish, source, target, mode)
            plan = replace(plan, input_scheme=input_scheme, weight_scheme=weight_scheme)
            decided[id(call.operation)] = _with_bits(plan, wish)
        layers[call.path] = decided[id(call.operation)]
    return QuantizationPlan(layers)


def _wish(call: Call, spec: QuantizationSpec, cases) -> tuple[LayerConfig | None, str]:
    """The entry that decides on the layer of `call`, and where it comes from."""
    if not call.is_layer:
        return None, ""
    entry = spec.find(call.name, call.class_names, call.path)
    if entry is not None:
        return entry, f"{'class' if entry.is_keras_class else 'name'} {entry.name!r} in the spec"
    for case_name, case_spec in reversed(cases):
        entry = case_spec.find(call.name, call.class_names, call.path)
        if entry is not None:
            return entry, case_name
    return None, ""


def _decide(call: Call, wish: LayerConfig | None, source: str, target: Target, mode: str) -> LayerPlan:
    plan = LayerPlan(call.path, call.class_name)
    if not call.is_layer:
        return replace(plan, reason="a keras.ops operation, not a layer")
    wrapper = find_wrapper(call.operation)
    if wish is not None:
        return _granted(plan, call, wish, source, wrapper)
    if mode == PARTIAL:
        return replace(plan, reason="not named (partial mode)")
    if wrapper is None:
        return replace(plan, reason=f"no quantize wrapper for {call.class_name}")
    rule = target.rule(call.class_names)
    if rule is None:
        if wrapper.__module__.split(".")[0] == __package__:
            reason = f"{call.class_name} is not in the {target.name} table: name the layer or its class in a spec"
            return replace(plan, reason=reason)
        everything = LayerConfig(call.name)
        return _granted(plan, call, everything, f"your {wrapper.__name__}", wrapper)
    if not rule.inputs and not rule.weights:
        return replace(plan, reason=rule.why_not)
    entry = LayerConfig(call.name, quantize_input=rule.inputs, quantize_weight=rule.weights)
    return _granted(plan, call, entry, "default", wrapper)


def _granted(plan: LayerPlan, call: Call, entry: LayerConfig, source: str, wrapper) -> LayerPlan:
    """The plan that does what an entry asks, as far as the layer has it."""
    floating = [i for i, tensor in enumerate(call.inputs) if keras.backend.is_float_dtype(tensor.dtype)]
    inputs = floating if entry.quantize_input else []
    if entry.quantization_index is not None:
        count = len(call.inputs)
        wrong = [i for i in entry.quantization_index if not 0 <= i < count]
        if wrong:
            warnings.warn(
                f"Layer {call.path!r} has {count} input(s), so quantization_index {wrong} is ignored. Valid indices "
                f"are 0 to {count - 1}.",
                UserWarning,
                stacklevel=5,
            )
        inputs = [i for i in floating if i in entry.quantization_index]
    wrapper = wrapper or NonWeightedBaseQuantizeWrapper
    weights = entry.quantize_weight and not issubclass(wrapper, NonWeightedBaseQuantizeWrapper)
    if inputs or weights:
        return replace(plan, inputs=tuple(inputs), weights=weights, reason=source, wrapper=wrapper)
    if call.inputs and not floating:
        return replace(plan, reason=f"its input is {call.inputs[0].dtype}, not float")
    return replace(plan, reason=f"switched off ({source})")


def _with_bits(plan: LayerPlan, wish: LayerConfig | None) -> LayerPlan:
    if wish is not None and wish.input_bits is not None:
        plan = replace(plan, input_scheme=replace(plan.input_scheme, bits=wish.input_bits))
    if wish is not None and wish.weight_bits is not None:
        plan = replace(plan, weight_scheme=replace(plan.weight_scheme, bits=wish.weight_bits))
    return plan


def _warn_of_unknown_names(spec: QuantizationSpec, graph: LayerGraph) -> None:
    names = [call.name for call in graph.calls if call.is_layer]
    paths = [call.path for call in graph.calls if call.is_layer]
    classes = {name for call in graph.calls for name in call.class_names}
    for entry in spec.layers:
        if entry.is_keras_class:
            known = entry.name in classes or hasattr(keras.layers, entry.name)
            hint = did_you_mean(entry.name, sorted(classes))
            what = "layer of class"
        else:
            known = any(entry.matches(name, path) for name, path in zip(names, paths, strict=True))
            hint = did_you_mean(entry.name, names + paths)
            what = "layer that matches" if entry.is_pattern else "layer named"
        if not known:
            warnings.warn(
                f"The model has no {what} {entry.name!r}; this entry of the QuantizationSpec does nothing.{hint}",
                UserWarning,
                stacklevel=4,
            )
