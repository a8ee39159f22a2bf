"""Weights in blocks: which layers have them, and what the entries of a spec say about them.

A layer with weights in blocks multiplies in float: the runtime expands the integers while it multiplies. So what the
layer reads is not quantized for it, as with `quantize_input=False`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.quantize.spec import LayerConfig
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.quantizers.scheme import check_block_size
from tensorflow_quantization.targets import TARGETS, BlockRule, Target
from tensorflow_quantization.wrappers.products import WITH_BLOCKS, summed_inputs

#: The bits of weights in blocks where nobody says how many.
DEFAULT_BITS = 4


@dataclass(frozen=True)
class WeightBlocks:
    """What `quantize_model` was asked about blocks.

    Attributes:
        target: the runtime.
        bits: of weights in blocks where no entry sets them; `None`: 4.
        block_size: of all layers that can have blocks; `None`: only entries ask for blocks.
        only_named: layers without an entry stay float (partial mode).

    Raises:
        ValueError: the block size is out of range, or the target takes no blocks, or not of these bits.
    """

    target: Target
    bits: int | None = None
    block_size: int | None = None
    only_named: bool = False

    def __post_init__(self):
        if self.block_size is not None:
            check_block_size(self.block_size, "block_size")
            rule, bits = rule_of(self.target), self.bits or DEFAULT_BITS
            if bits not in rule.bits:
                raise ValueError(f"weight_bits={bits} with block_size={self.block_size}: {_able(self.target)}")

    def settle(self, call: Call, entry: LayerConfig | None, source: str) -> tuple[LayerConfig | None, str]:
        """The entry that decides on a layer, and its source as text.

        Its `block_size` is the size of the blocks that the layer has. If it has blocks, the entry leaves its input
        float.

        Args:
            call: the layer.
            entry, source: the entry of the user or of a case; `None` and "": there is none.

        Raises:
            ValueError: the entry asks for blocks that the layer or the target cannot have.
        """
        size = self._asked(entry)
        if not size:
            return entry, source
        why_not = self._why_not(call, size)
        if why_not is None:
            asked = LayerConfig(call.name) if entry is None else entry
            asked = replace(asked, block_size=size, quantize_input=False, quantization_index=None)
            return asked, source or f"block_size={size}"
        if entry is None:
            return None, source
        by_name = entry.name in (call.name, call.path)
        if entry.block_size and (by_name or (entry.is_keras_class and not summed_inputs(call.operation))):
            raise ValueError(
                f"Layer {call.path!r} ({call.class_name}) cannot have block_size={size} of the entry {entry.name!r}: "
                f"{why_not}. Pass block_size=0 to quantize it without blocks."
            )
        return replace(entry, block_size=0), source

    def note(self, call: Call, entry: LayerConfig | None) -> str | None:
        """Why a layer that multiplies by matrices has no blocks, although they are asked for; `None`: it has them.

        Args:
            call: the layer.
            entry: the entry of the user or of a case, as it was before `settle`.
        """
        size = self._asked(entry)
        return self._why_not(call, size) if size and summed_inputs(call.operation) else None

    def scheme(self, entry: LayerConfig, weights: QuantizationScheme, path: str) -> QuantizationScheme:
        """The integers of the weights of a layer with blocks.

        Args:
            entry: the result of `settle`.
            weights: the integers of weights without blocks.
            path: the path of the layer.

        Raises:
            ValueError: the target takes no blocks of these bits.
        """
        bits = entry.weight_bits or self.bits or DEFAULT_BITS
        if bits not in rule_of(self.target).bits:
            raise ValueError(
                f"Layer {path!r} has {bits} bits with block_size={entry.block_size} of the entry {entry.name!r}: "
                f"{_able(self.target)}"
            )
        return replace(weights, bits=bits, block_size=entry.block_size)

    def _asked(self, entry: LayerConfig | None) -> int | None:
        """The size of the blocks that are asked for; `None` or 0 if none are."""
        if entry is None:
            return None if self.only_named else self.block_size
        if not entry.quantize_weight:
            return None
        return self.block_size if entry.block_size is None else entry.block_size

    def _why_not(self, call: Call, size: int) -> str | None:
        """Why a layer cannot have blocks of a size, a clause; `None`: it can."""
        inputs = summed_inputs(call.operation)
        if not inputs:
            return f"it does not multiply by a matrix. These layers can: {WITH_BLOCKS}"
        broken = sorted({count for count in inputs if count % size})
        if broken and not rule_of(self.target).partial:
            counts = " and ".join(map(str, broken))
            return f"it sums {counts} inputs, no multiple of {size}, and target {self.target.name!r} takes whole blocks"
        return None


def rule_of(target: Target) -> BlockRule:
    """The blocks that a target takes.

    Raises:
        ValueError: it takes none.
    """
    if target.blocks is not None:
        return target.blocks
    able = ", ".join(repr(name) for name, known in TARGETS.items() if known.blocks is not None)
    in_float8 = " in FP8" if target.weights is not None and target.weights.floating else ""
    raise ValueError(
        f"block_size is not for target {target.name!r}{in_float8}, which takes no weights in blocks. "
        f"Leave block_size out, or quantize to integers for target={able}, or without a target."
    )


def _able(target: Target) -> str:
    able = [str(bits) for bits in sorted(rule_of(target).bits)]
    return (
        f"for target {target.name!r}, weights in blocks have {' or '.join(able)} bits. Pass weight_bits={able[0]}, or "
        "leave block_size out."
    )
