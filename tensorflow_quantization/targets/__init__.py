"""Targets, one file for each runtime: where the quantizers go, and which integers they use."""

from tensorflow_quantization.quantizers.activation import are_learned
from tensorflow_quantization.quantizers.scheme import FLOAT8, MAX_BITS, MIN_BITS, WIDE_BITS
from tensorflow_quantization.targets.default import DEFAULT
from tensorflow_quantization.targets.litert import LITERT
from tensorflow_quantization.targets.onnxruntime import ONNXRUNTIME
from tensorflow_quantization.targets.openvino import OPENVINO
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.target import BlockRule, MatmulOperand, Placement, Target
from tensorflow_quantization.targets.tensorrt import TENSORRT
from tensorflow_quantization.text.messages import must_be_one_of

__all__ = [
    "DEFAULT",
    "TARGETS",
    "BlockRule",
    "MatmulOperand",
    "Placement",
    "Reason",
    "ReasonCode",
    "Target",
    "find_target",
]

#: The targets of the library, by name.
TARGETS = {target.name: target for target in (TENSORRT, ONNXRUNTIME, OPENVINO, LITERT)}


def find_target(target: str | Target | None) -> Target:
    """Return the target with a name.

    Examples:
        >>> find_target("onnxruntime").activations.dtype
        'uint8'
        >>> find_target(None).name
        'default'

    Args:
        target: "tensorrt", "onnxruntime", "openvino" or "litert"; a `Target`, which is returned unchanged; or `None`
            for `DEFAULT`, the table of NVIDIA's toolkit.

    Returns:
        The `Target`.

    Raises:
        ValueError: no target has this name; the message lists the names.
    """
    if target is None:
        return DEFAULT
    if isinstance(target, Target):
        return target
    if not isinstance(target, str) or target not in TARGETS:
        raise ValueError(must_be_one_of("target", TARGETS, target, besides="a Target"))
    return TARGETS[target]


def with_wide_activations(target: Target) -> Target:
    """Return the target that computes with activations of 16 bits.

    Examples:
        >>> with_wide_activations(find_target("litert")).activations.dtype
        'int16'

    Raises:
        ValueError: the runtime does not compute with them.
    """
    if target.wide is None:
        able = ", ".join(repr(name) for name, known in TARGETS.items() if known.wide is not None)
        given = "no target" if target is DEFAULT else f"target {target.name!r}"
        raise ValueError(
            f"activation_bits={WIDE_BITS} needs a runtime with integer kernels for them: target={able}, got {given}. "
            f"Pass {MIN_BITS} to {MAX_BITS}, or leave activation_bits out."
        )
    return target.wide


def check_learned(target: Target, ranges: str, weight_ranges: str, activation_bits: int | None) -> None:
    """Raise: ValueError: the runtime does not take learned steps, or they have too many bits to be learned."""
    if weight_ranges == "learned" and not target.learned_weights:
        raise ValueError(
            f"Target {target.name!r} has no learned steps of weights: TensorFlow's converter computes the step of a "
            "channel from its greatest weight. Leave weight_ranges out."
        )
    if are_learned(ranges) and activation_bits == WIDE_BITS:
        raise ValueError(
            f"ranges={ranges!r} trains steps of few bits, and one of {WIDE_BITS} bits is less than an update of it. "
            'Pass "ema" or "last", or leave activation_bits out.'
        )


def in_dtype(target: Target, dtype: str | None) -> Target:
    """Return the target that computes in a dtype.

    Examples:
        >>> in_dtype(find_target("tensorrt"), "float8_e4m3fn").weights.dtype
        'float8_e4m3fn'

    Args:
        target: a `Target`.
        dtype: "float8_e4m3fn"; or `None` for integers, which returns `target` unchanged.

    Raises:
        ValueError: there is no such dtype, or the runtime does not compute in it.
    """
    if dtype is None:
        return target
    if dtype != FLOAT8:
        raise ValueError(must_be_one_of("dtype", [FLOAT8], dtype, besides="None for integers"))
    if target.float8 is None:
        able = ", ".join(repr(name) for name, known in TARGETS.items() if known.float8 is not None)
        given = "no target" if target is DEFAULT else f"target {target.name!r}"
        raise ValueError(
            f"dtype={dtype!r} needs a runtime that computes in FP8: target={able}, got {given}. Leave dtype out for "
            "integers."
        )
    return target.float8
