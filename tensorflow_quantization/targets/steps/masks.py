"""The reason for each call that stays in float because of the huge numbers of a mask."""

from __future__ import annotations

from tensorflow_quantization.targets.draft import MASKED, Draft


def explain_masks(draft: Draft) -> None:
    """Store the reason for each call that has an integer kernel, and gets or returns the huge numbers of a mask."""
    for call in draft.graph.calls:
        if draft.rules.is_integer(call) and draft.is_masked(call) and call.path not in draft.placements:
            draft.update(call, MASKED)
