"""The ranges with which LiteRT computes.

The converter widens a narrower range to 1e-6, without a word. If the step of a sum is much smaller than a step of its
inputs, LiteRT computes other integers, and from a ratio of 2**19 on it aborts the process.
"""

from __future__ import annotations

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.export.litert.calls import quantizer_of
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.op_traits import is_one_of
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import activation_quantizers
from tensorflow_quantization.wrappers.unwrapped import unwrapped

#: The converter's narrowest range.
NARROWEST = 1e-6
#: Of the steps of an input and the output of a sum. Measured with ai-edge-litert: right at 2**8, wrong at 2**10.
LARGEST_RATIO = 2.0**8
_SUMS = ("Add", "Average", "Subtract")


def check_ranges(graph: LayerGraph) -> None:
    """Raises: ExportError: LiteRT would compute with other ranges, or abort; the message names the layers."""
    bad = [_narrow(call, quantizer) for call in graph.calls for quantizer in activation_quantizers(call.operation)]
    flat, _ = unwrapped(graph)
    bad += [_unequal(flat, call) for call in flat.calls if is_one_of(call, _SUMS)]
    found = list(dict.fromkeys(text for text in bad if text))
    if found:
        more = f"\n  and {len(found) - 5} more" if len(found) > 5 else ""
        raise ExportError(
            "LiteRT cannot compute with these ranges:\n"
            + "\n".join(f"  {text}" for text in found[:5])
            + more
            + "\nValues fade or grow from layer to layer, in a model without training for example: train the model, "
            "normalize its input or the output of these layers, and calibrate with data as in use."
        )


def _narrow(call: Call, quantizer: ActivationQuantizer) -> str:
    width = (2**quantizer.scheme.bits - 1) * float(quantizer.parameters()[0])
    if width >= NARROWEST:
        return ""
    return f"{call.path}: a range of width {width:.3g}, less than {NARROWEST:g}"


def _unequal(graph: LayerGraph, call: Call) -> str:
    readers = graph.consumers(call.outputs[0])
    after = [reader.operation for reader in readers if isinstance(reader.operation, ActivationQuantizer)]
    before = [quantizer_of(tensor) for tensor in call.inputs]
    scales = [float(q.parameters()[0]) for q in before if q is not None]
    if not after or not scales:
        return ""
    scale, largest = float(after[0].parameters()[0]), max(scales)
    if largest <= LARGEST_RATIO * scale:
        return ""
    return f"{call.path}: a sum with steps of {scale:.3g} of tensors with steps of up to {largest:.3g}"
