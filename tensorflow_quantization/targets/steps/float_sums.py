"""The reason for each sum that stays in float."""

from __future__ import annotations

from tensorflow_quantization.targets.draft import Draft
from tensorflow_quantization.targets.float_sums import STAYS_IN_FLOATS


def explain_float_sums(draft: Draft) -> None:
    """Store the reason for each sum that stays in float, unless an earlier step placed a quantizer on it."""
    for call in draft.graph.calls:
        if id(call) in draft.float_sums and call.path not in draft.placements:
            draft.update(call, STAYS_IN_FLOATS)
