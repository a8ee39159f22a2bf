"""`quantize_model`: trace, plan, rewrite."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace

import keras

from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantize.bias_rounding import plan_bias_rounding
from tensorflow_quantization.quantize.blocks import close_unquantized, open_blocks
from tensorflow_quantization.quantize.case import CustomQDQInsertionCase
from tensorflow_quantization.quantize.insert import apply_plan, quantize_input, quantize_operand
from tensorflow_quantization.quantize.plan import QuantizationPlan
from tensorflow_quantization.quantize.planner import FULL, PARTIAL, make_plan
from tensorflow_quantization.quantize.spec import QuantizationSpec, SpecIndex, same_bits
from tensorflow_quantization.quantize.stored_reasons import store_reasons
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.activation import check_ranges
from tensorflow_quantization.quantizers.scheme import check_bits
from tensorflow_quantization.targets import Target, find_target
from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.wrappers import BaseQuantizeWrapper


def quantize_model(
    model: keras.Model,
    quantization_mode: str = FULL,
    quantization_spec: QuantizationSpec | None = None,
    custom_qdq_cases: Iterable[CustomQDQInsertionCase] | None = None,
    *,
    target: str | Target | None = None,
    ranges: str = "ema",
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    input_bits: int | None = None,
) -> keras.Model:
    """Make a model quantization-aware: a new model with fake-quantization in front of inputs and weights.

    The layers that are quantized are wrapped and named `quant_<layer name>`; weights, names, nesting, `trainable`
    flags and the compile configuration are those of `model`, which stays as it is. Weights are quantized per output
    channel, activations per tensor: 8 bits, symmetric, zero point 0, integers -127 to 127, rounded half to even, unless
    the module globals `G_NUM_BITS`, `G_NARROW_RANGE`, `G_SYMMETRIC` or an argument say otherwise.

    Args:
        model: any built Keras 3 model: Functional, Sequential, subclassed, with other models inside, or with blocks,
            layers of your own that are made of layers; in the result, a model stands for a block that was quantized.
        quantization_mode: "full" quantizes every supported layer by the default table, or as spec and cases say;
            "partial" only what spec and cases name.
        quantization_spec: what to do with single layers or classes.
        custom_qdq_cases: rules that decide by the model's structure; where two speak of a layer, the later one counts.
        target: the runtime that the model is for: "tensorrt", "onnxruntime", "openvino", "litert", or a `Target` of
            your own. It decides what is quantized unasked, where the quantizers go, and in which integers; spec and
            cases still win. `None` is the documented default table.
        ranges: how activation ranges follow training: "ema" (moving average), "last" (the last batch) or "learned"
            (trained step sizes, LSQ, arXiv:1902.08153).
        weight_bits, activation_bits: 2 to 8, for all layers; an entry of the spec may say otherwise for its own.
        input_bits: an older name of `activation_bits`.

    Returns:
        The quantized model, compiled as `model` is. Train it, or `calibrate` it; then `export_onnx`.

    Raises:
        TypeError: `model`, the spec or a case is of a wrong type, or a case returns one.
        ValueError: unknown mode, target or ranges, "partial" with nothing named, bits out of range, `activation_bits`
            and `input_bits` that differ, a model that is not built or is quantized already, a layer that cannot be
            copied, one that is named and cannot be wrapped.
    """
    check_ranges(ranges)
    graph, plan = _decide(
        model,
        quantization_mode,
        quantization_spec,
        custom_qdq_cases,
        target,
        weight_bits,
        same_bits(activation_bits, input_bits),
    )
    quantized = rewrite(
        graph,
        lambda call, copy: apply_plan(plan[call.path], copy, len(call.operands), ranges),
        lambda tensor: quantize_input(plan, tensor.name, tensor is graph.inputs[0], ranges),
        lambda call, tensor: quantize_operand(plan[call.path], call, tensor, ranges),
    )
    store_reasons(quantized, plan)
    return quantized


def plan_model(
    model: keras.Model,
    quantization_mode: str = FULL,
    quantization_spec: QuantizationSpec | None = None,
    custom_qdq_cases: Iterable[CustomQDQInsertionCase] | None = None,
    *,
    target: str | Target | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
) -> QuantizationPlan:
    """What `quantize_model` would do with the same arguments, and why; it is not done.

    Raises:
        TypeError, ValueError: as `quantize_model` does.
    """
    _, plan = _decide(
        model, quantization_mode, quantization_spec, custom_qdq_cases, target, weight_bits, activation_bits
    )
    return plan


def _decide(
    model: keras.Model, mode: str, spec, custom_qdq_cases, target, weight_bits: int | None, activation_bits: int | None
) -> tuple[LayerGraph, QuantizationPlan]:
    """The graph of a model, with those blocks open in which something is quantized, and the plan for it."""
    cases = _check_arguments(mode, spec, custom_qdq_cases)
    target = find_target(target)
    schemes = _schemes(target, weight_bits, activation_bits)
    graph = LayerGraph.trace(model)
    _check_not_quantized(model, graph.flatten())
    own = spec or QuantizationSpec()
    blocks, reasons = open_blocks(graph, _named_in([own]))
    case_specs = _ask_all(cases, _without_quantizers(graph) if blocks and cases else model, own)
    named_by_case = _named_in([asked for _, asked in case_specs])
    if any(named_by_case(block.calls[0][0]) for block in blocks):  # what a case names as a whole stays closed
        graph = LayerGraph.trace(model)
        blocks, reasons = open_blocks(graph, _named_in([own, *(asked for _, asked in case_specs)]))
    plan = make_plan(
        graph.flatten(), target=target, mode=mode, spec=spec, case_specs=case_specs, reasons=reasons, **schemes
    )
    plan = close_unquantized(blocks, plan)
    return graph, plan_bias_rounding(graph, plan)


def _without_quantizers(graph: LayerGraph) -> keras.Model:
    """The model with its open blocks as nested models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user reads the same warnings when the quantized model is made
        return rewrite(graph, lambda call, copy: [copy])


def _check_arguments(mode, spec, cases) -> list[CustomQDQInsertionCase]:
    if mode not in (FULL, PARTIAL):
        raise ValueError(f"quantization_mode must be {FULL!r} or {PARTIAL!r}, got {mode!r}.{_close_mode(mode)}")
    if spec is not None and not isinstance(spec, QuantizationSpec):
        raise TypeError(f"quantization_spec must be a QuantizationSpec, got {type(spec).__name__}.")
    if cases is None:
        cases = []
    elif not isinstance(cases, Iterable):
        cases = [cases]
    else:
        cases = list(cases)
    for case in cases:
        if not isinstance(case, CustomQDQInsertionCase):
            raise TypeError(
                f"custom_qdq_cases must hold instances of CustomQDQInsertionCase, got {case!r}. "
                "Pass a list of them, such as [ResNetV1QDQCase()]."
            )
    if mode == PARTIAL and not spec and not cases:
        raise ValueError(
            "Partial quantization quantizes only what is named, and nothing is: pass a quantization_spec with at least "
            'one entry or custom_qdq_cases, or quantization_mode="full".'
        )
    return cases


def _close_mode(mode) -> str:
    return did_you_mean(mode, [FULL, PARTIAL]) if isinstance(mode, str) else ""


def _schemes(target: Target, weight_bits: int | None, activation_bits: int | None) -> dict[str, QuantizationScheme]:
    """The schemes of weights, of activations, and of those that are multiplied, as arguments of `make_plan`."""
    import tensorflow_quantization as package  # the globals count as they are now, not as they were at import

    check_bits(package.G_NUM_BITS, "G_NUM_BITS")

    by_globals = QuantizationScheme(
        package.G_NUM_BITS, symmetric=package.G_SYMMETRIC, narrow_range=package.G_NARROW_RANGE
    )

    def scheme(wanted: QuantizationScheme | None, bits: int | None, argument: str) -> QuantizationScheme:
        wanted = wanted or by_globals
        return wanted if bits is None else replace(wanted, bits=check_bits(bits, argument))

    return {
        "weight_scheme": scheme(target.weights, weight_bits, "weight_bits"),
        "activation_scheme": scheme(target.activations, activation_bits, "activation_bits"),
        "factor_scheme": scheme(target.matmul_operands or target.activations, activation_bits, "activation_bits"),
    }


def _check_not_quantized(model: keras.Model, flat: LayerGraph) -> None:
    for call in flat.calls:
        if isinstance(call.operation, BaseQuantizeWrapper):
            raise ValueError(
                f"Model {model.name!r} is quantized already: {call.path!r} is a {call.class_name}. "
                "Quantize the float model it was made from."
            )
        if getattr(call.operation, "quantization_mode", None):
            raise ValueError(
                f"Layer {call.path!r} is quantized already, by Keras' own model.quantize"
                f"({call.operation.quantization_mode!r}). Quantize the float model it was made from."
            )


def _named_in(specs: Iterable[QuantizationSpec]) -> Callable[[Call], bool]:
    """Whether one of the specs speaks of a layer, by its name or class."""
    indices = [SpecIndex(spec) for spec in specs]

    def named(call: Call) -> bool:
        entries = [index.find(call.name, call.class_names_in_spec, call.path) for index in indices]
        return any(entry is not None and not entry.is_pattern for entry in entries)

    return named


def _ask_all(
    cases: list[CustomQDQInsertionCase], model: keras.Model, spec: QuantizationSpec
) -> list[tuple[str, QuantizationSpec]]:
    """The name of each case, and what it asks."""
    found = []
    for case in cases:
        asked = case.case(model, spec.copy())
        if asked is not None and not isinstance(asked, QuantizationSpec):
            raise TypeError(
                f"{type(case).__name__}.case must return a QuantizationSpec or None, got {type(asked).__name__}."
            )
        found.append((type(case).__name__, asked or QuantizationSpec()))
    return found
