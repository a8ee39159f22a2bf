"""`quantize_model`: trace the model, plan every layer, rewrite the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace

import keras

from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.masking import masked_calls
from tensorflow_quantization.model.precision import check_float32
from tensorflow_quantization.model.weights import merged_array, mode_of_keras
from tensorflow_quantization.quantize.bias_rounding import plan_bias_rounding
from tensorflow_quantization.quantize.blocks import close_unquantized, open_blocks
from tensorflow_quantization.quantize.case import CustomQDQInsertionCase
from tensorflow_quantization.quantize.insert import apply_plan, quantize_input, quantize_operand
from tensorflow_quantization.quantize.plan import QuantizationPlan
from tensorflow_quantization.quantize.planner import FULL, PARTIAL, make_plan
from tensorflow_quantization.quantize.spec import QuantizationSpec, SpecIndex, same_bits
from tensorflow_quantization.quantize.stored_reasons import store_reasons
from tensorflow_quantization.quantize.time_distributed import open_time_distributed
from tensorflow_quantization.quantize.weight_blocks import WeightBlocks, rule_of
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.activation import check_ranges
from tensorflow_quantization.quantizers.scheme import WIDE_BITS, check_bits
from tensorflow_quantization.quantizers.weight import check_weight_ranges
from tensorflow_quantization.targets import TARGETS, Target, check_learned, find_target, in_dtype, with_wide_activations
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import did_you_mean, other_name
from tensorflow_quantization.text.warn import warn_user
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, wrappers_in
from tensorflow_quantization.wrappers.products import WITH_BLOCKS
from tensorflow_quantization.wrappers.refusing import refuse_keras_quantize

#: The number of layers that an error lists.
_SHOWN = 8


@suggests_arguments
def quantize_model(
    model: keras.Model,
    quantization_mode: str = FULL,
    quantization_spec: QuantizationSpec | None = None,
    custom_qdq_cases: Iterable[CustomQDQInsertionCase] | None = None,
    *,
    target: str | Target | None = None,
    ranges: str = "ema",
    weight_ranges: str = "minmax",
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    input_bits: int | None = None,
    dtype: str | None = None,
    block_size: int | None = None,
) -> keras.Model:
    """Return a copy of a model with fake quantization, for training or calibration.

    Quantized layers are wrapped and named `quant_<layer name>`. Weights, names, nesting, `trainable` flags and the
    compile configuration are copied; `model` itself does not change. Weights are quantized per output channel,
    activations per tensor; values are rounded half to even. By default the integers have 8 bits, are symmetric (zero
    point 0) and go from -127 to 127. A `target` and the bit arguments change the integers. So do the module globals
    `G_NUM_BITS`, `G_NARROW_RANGE` and `G_SYMMETRIC`, but only without a `target`, whose integers are its own.

    Examples:
        >>> quantized = quantize_model(model, target="onnxruntime")
        >>> describe(quantized)["conv"].quantized
        True

    Args:
        model: a built Keras 3 model: Functional, Sequential or subclassed, also with nested models or with blocks
            (custom layers made of layers, or of operations on several inputs). A block with a quantized layer becomes a
            nested model in the result.
        quantization_mode: "full" (default) quantizes what the target quantizes by default, changed by spec and cases;
            "partial" quantizes only the layers that spec and cases name.
        quantization_spec: a `QuantizationSpec` with entries for single layers or classes; `None` (default): no entries.
        custom_qdq_cases: a list of `CustomQDQInsertionCase`, rules that decide by the model's structure; `None`
            (default): no rules. If two rules decide on one layer, the later rule counts.
        target: the runtime that will run the model: "tensorrt", "onnxruntime", "openvino", "litert", or a custom
            `Target`. It sets which layers are quantized by default, where the quantizers are, and the integers. Spec
            and cases win over it. `None` (default): the table of NVIDIA's toolkit.
        ranges: how activation ranges follow training: "ema" (default; moving average), "last" (the last batch),
            "learned" (trained step sizes, LSQ, arXiv:1902.08153) or "learned_offset" (trained zero points, too, LSQ+,
            arXiv:2004.09576).
        weight_ranges: how the ranges of weights follow training: "minmax" (default; from the least to the greatest
            value of each channel) or "learned" (trained step sizes, LSQ, from the least squared error on).
        weight_bits: bits of all weights, 2 to 8; `None` (default): as the target says. Entries of the spec win.
        activation_bits: bits of all activations, 2 to 8; or 16 with `target="litert"`, for the whole model, which loses
            almost nothing and is slower than 8; `None` (default): as the target says. Entries of the spec win.
        input_bits: an older name of `activation_bits`.
        dtype: "float8_e4m3fn": weights and activations are numbers of FP8, which `target="tensorrt"` multiplies on GPUs
            of compute capability 8.9 and newer. `None` (default): integers.
        block_size: of weights, as many consecutive inputs share a scale, for each output channel: a power of two of at
            least 16, such as 32 or 128. It is for layers that multiply by a matrix: Dense, EinsumDense, and the
            projections of MultiHeadAttention and GroupQueryAttention. They compute in float, so what they read is not
            quantized for them. `weight_bits`, 4 or 8 and by default 4, is then for these layers; all others are
            quantized as without both. A layer whose inputs are no multiple of the size has a shorter last block with
            `target="onnxruntime"`, else no blocks, as `describe` says. `None` (default): no blocks, but for entries of
            the spec.

    Returns:
        The quantized `keras.Model`, compiled like `model`. Train or `calibrate` it, then export it.

    Raises:
        TypeError: `model`, the spec or a case has a wrong type, or a case returns a wrong type.
        ValueError: the mode, the target, `ranges` or `weight_ranges` is unknown; mode "partial" with no layer named;
            bits are out of range, or the target cannot compute with them, or with the dtype, or bits are passed with
            `dtype`, which has 8; the block size is out of range, or the target or the dtype takes no blocks, or not of
            these bits; `activation_bits` and `input_bits` differ;
            the model is not built or is quantized already, or not in float32 and the target quantizes no other; a layer
            cannot be copied; a named layer cannot be wrapped;
            or mode "full" finds nothing to quantize, and neither spec nor case switched a layer off.
    """
    check_ranges(ranges)
    check_weight_ranges(weight_ranges)
    check_learned(find_target(target), ranges, weight_ranges, activation_bits)
    graph, plan = decide(
        model,
        quantization_mode,
        quantization_spec,
        custom_qdq_cases,
        target,
        weight_bits,
        same_bits(activation_bits, input_bits),
        dtype,
        block_size,
    )
    _check_quantizes(model, plan, quantization_mode)
    return insert(graph, plan, ranges, weight_ranges)


def insert(
    graph: LayerGraph, plan: QuantizationPlan, ranges: str = "ema", weight_ranges: str = "minmax", apply=apply_plan
) -> keras.Model:
    """A copy of a model with the quantizers of a plan.

    Args:
        graph, plan: as `decide` returns them.
        ranges, weight_ranges: as for `quantize_model`.
        apply: takes the arguments of `apply_plan`, the default, and returns the operations for one layer.
    """
    quantized = rewrite(
        graph,
        lambda call, copy: apply(plan[call.path], copy, len(call.operands), ranges, weight_ranges),
        lambda tensor: quantize_input(plan, tensor.name, tensor is graph.inputs[0], ranges),
        lambda call, tensor: quantize_operand(plan[call.path], call, tensor, ranges),
    )
    store_reasons(quantized, plan)
    _start_steps(quantized)
    refuse_keras_quantize(quantized)
    return quantized


def _start_steps(quantized: keras.Model) -> None:
    """Starts learned steps of weights, which the copy has only now."""
    for wrapper in wrappers_in(quantized):
        for name, quantizer in wrapper.weight_quantizers.items():
            if quantizer.learns:
                quantizer.start(merged_array(wrapper.layer, name))


def plan_model(
    model: keras.Model,
    quantization_mode: str = FULL,
    quantization_spec: QuantizationSpec | None = None,
    custom_qdq_cases: Iterable[CustomQDQInsertionCase] | None = None,
    *,
    target: str | Target | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    dtype: str | None = None,
    block_size: int | None = None,
) -> QuantizationPlan:
    """The plan that `quantize_model` carries out for the same arguments; no model is built.

    Args:
        model, quantization_mode, quantization_spec, custom_qdq_cases, target, weight_bits, activation_bits, dtype,
            block_size: as for `quantize_model`.

    Returns:
        A `QuantizationPlan` with a decision and its reason for each layer.

    Raises:
        TypeError, ValueError: as `quantize_model` does, except that a plan may quantize nothing.
    """
    _, plan = decide(
        model,
        quantization_mode,
        quantization_spec,
        custom_qdq_cases,
        target,
        weight_bits,
        activation_bits,
        dtype,
        block_size,
    )
    return plan


def decide(
    model: keras.Model,
    mode: str,
    spec: QuantizationSpec | None,
    custom_qdq_cases: Iterable[CustomQDQInsertionCase] | None,
    target: str | Target | None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    dtype: str | None = None,
    block_size: int | None = None,
) -> tuple[LayerGraph, QuantizationPlan]:
    """The graph of a model and the plan for it; the blocks in which a layer is quantized are open."""
    cases = _check_arguments(mode, spec, custom_qdq_cases)
    target = in_dtype(find_target(target), dtype)
    if activation_bits == WIDE_BITS:
        target, activation_bits = with_wide_activations(target), None
    weight_blocks = WeightBlocks(target, weight_bits, block_size, mode == PARTIAL)
    # With a block size, the bits of weights are for the layers with blocks.
    schemes = _schemes(target, weight_bits if block_size is None else None, activation_bits)
    flat = LayerGraph.trace(model).flatten()
    _check_not_quantized(model, flat)
    if target.float32_only is not None:
        check_float32(flat.live(), target.float32_only)
    own = spec or QuantizationSpec()
    masked_paths = masked_calls(flat)

    def masked(call: Call) -> bool:  # also in a layer that a mask reaches
        parts = call.path.split("/")
        return any("/".join(parts[:n]) in masked_paths for n in range(1, len(parts) + 1))

    def opened(steps: bool) -> tuple[LayerGraph, set[str], dict[str, Reason]]:
        traced = LayerGraph.trace(model)
        return open_time_distributed(traced, SpecIndex(own)) if steps else (traced, set(), {})

    def attempt(steps: bool):
        graph, folded, kept = opened(steps)
        blocks, reasons = open_blocks(graph, _named_in([own]), masked)
        case_specs = _ask_all(cases, _without_quantizers(graph) if blocks and cases else model, own)
        named_by_case = _named_in([asked for _, asked in case_specs])
        if any(named_by_case(block.calls[0][0]) for block in blocks):  # a block that a case names stays closed
            graph, folded, kept = opened(steps)
            blocks, reasons = open_blocks(graph, _named_in([own, *(asked for _, asked in case_specs)]), masked)
        reasons |= kept
        plan = make_plan(
            graph.flatten(),
            target=target,
            mode=mode,
            spec=spec,
            case_specs=case_specs,
            reasons=reasons,
            weight_blocks=weight_blocks,
            **schemes,
        )
        return graph, blocks, plan, folded

    graph, blocks, plan, folded = attempt(steps=True)
    if folded and not any(_quantizes_in(plan, path) for path in folded):  # then the model keeps these layers unchanged
        graph, blocks, plan, _ = attempt(steps=False)
    plan = close_unquantized(blocks, plan)
    if block_size is not None and mode == FULL and not any(layer.weight_scheme.block_size for layer in plan):
        raise ValueError(
            f"No layer of model {model.name!r} can have weights in blocks of {block_size}. These layers can: "
            f"{WITH_BLOCKS}{'' if rule_of(target).partial else ', if they sum a multiple of it'}. Leave block_size out."
        )
    if mode == PARTIAL and not plan.quantizes:
        warn_user(
            "Nothing is quantized: the spec and the cases name no layer of the model that can be quantized, and "
            "partial mode quantizes nothing else."
        )
    return graph, plan_bias_rounding(graph, plan)


def _check_quantizes(model: keras.Model, plan: QuantizationPlan, mode: str) -> None:
    """Raises: ValueError: full mode quantizes nothing, although nobody switched a layer off."""
    layers = [layer for layer in plan if layer.class_name != "InputLayer"]
    if plan.quantizes or mode == PARTIAL or any(x.reason.code == ReasonCode.SWITCHED_OFF for x in layers):
        return
    reasons = [f"  {layer.path} ({layer.class_name}): {layer.reason}" for layer in layers]
    rest = [f"  and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
    raise ValueError(
        "\n".join([f"Nothing is quantized in model {model.name!r}:", *reasons[:_SHOWN], *rest])
        + "\nKeep the model in float, pass another target, or name layers in a quantization_spec."
    )


def _quantizes_in(plan: QuantizationPlan, path: str) -> bool:
    """Whether a plan quantizes a layer, or a layer in it."""
    return any(layer.quantized and f"{layer.path}/".startswith(f"{path}/") for layer in plan)


def _without_quantizers(graph: LayerGraph) -> keras.Model:
    """The float model, with its open blocks as nested models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # building the quantized model shows the same warnings
        return rewrite(graph, lambda call, copy: [copy])


def _check_arguments(mode, spec, cases) -> list[CustomQDQInsertionCase]:
    if isinstance(mode, keras.Model):
        raise TypeError("quantization_mode is a model. Pass the model first: quantize_model(model, ...).")
    runtime = other_name(mode, TARGETS)
    if runtime is not None:
        raise ValueError(f"quantization_mode must be {FULL!r} or {PARTIAL!r}, got {mode!r}. Pass target={runtime!r}.")
    if isinstance(mode, QuantizationSpec):
        raise TypeError("quantization_mode is a QuantizationSpec. Pass quantization_spec=spec.")
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
            'one entry, pass custom_qdq_cases, or set quantization_mode="full".'
        )
    return cases


def _close_mode(mode) -> str:
    return did_you_mean(mode, [FULL, PARTIAL]) if isinstance(mode, str) else ""


def _schemes(target: Target, weight_bits: int | None, activation_bits: int | None) -> dict[str, QuantizationScheme]:
    """The schemes of weights, activations and matmul operands, as arguments of `make_plan`."""
    import tensorflow_quantization as package  # read now: a user may have set the globals after the import

    check_bits(package.G_NUM_BITS, "G_NUM_BITS")

    by_globals = QuantizationScheme(
        package.G_NUM_BITS, symmetric=package.G_SYMMETRIC, narrow_range=package.G_NARROW_RANGE
    )

    def scheme(wanted: QuantizationScheme | None, bits: int | None, argument: str) -> QuantizationScheme:
        wanted = wanted or by_globals
        if bits is None:
            return wanted
        if check_bits(bits, argument) != wanted.bits and wanted.floating:
            raise ValueError(
                f"{argument}={bits} is for integers, and {wanted.name} has {wanted.bits} bits: leave it out."
            )
        return replace(wanted, bits=bits)

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
                "Pass the float model."
            )
        mode = mode_of_keras(call.operation)
        if mode is not None:
            raise ValueError(
                f"Layer {call.path!r} is quantized already, by Keras' own model.quantize({mode!r}). "
                "Pass the float model."
            )


def _named_in(specs: Iterable[QuantizationSpec]) -> Callable[[Call], bool]:
    """A function that says whether a spec names a layer, by its exact name or path or by its class."""
    indices = [SpecIndex(spec) for spec in specs]

    def named(call: Call) -> bool:
        entries = [index.find(call.name, call.class_names_in_spec, call.path) for index in indices]
        return any(entry is not None and not entry.is_pattern for entry in entries)

    return named


def _ask_all(
    cases: list[CustomQDQInsertionCase], model: keras.Model, spec: QuantizationSpec
) -> list[tuple[str, QuantizationSpec]]:
    """The class name of each case, and the spec that it returns."""
    found = []
    for case in cases:
        asked = case.case(model, spec.copy())
        if asked is not None and not isinstance(asked, QuantizationSpec):
            raise TypeError(
                f"{type(case).__name__}.case must return a QuantizationSpec or None, got {type(asked).__name__}."
            )
        found.append((type(case).__name__, asked or QuantizationSpec()))
    return found
