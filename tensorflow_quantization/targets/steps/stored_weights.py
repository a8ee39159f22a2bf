"""Recurrent layers that the runtime computes in float: the file stores their weights as integers."""

from __future__ import annotations

from tensorflow_quantization.targets.draft import Draft
from tensorflow_quantization.targets.reason import Reason, ReasonCode


def place_stored_weights(draft: Draft) -> None:
    """Quantize the weights of each layer in `KernelRules.stored`."""
    for call in draft.graph.calls:
        if draft.rules.stores(call) and not draft.switched_off(call):
            reason = Reason(ReasonCode.STORED_IN_INTEGERS, draft.rules.why_float(call) or "")
            draft.update(call, reason, weights=True)
