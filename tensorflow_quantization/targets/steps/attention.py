"""Attention: the matrix products of activations within the layer, or its projections alone."""

from __future__ import annotations

from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.op_traits import Trait, traits
from tensorflow_quantization.targets.draft import COMPUTED_IN_INTEGERS, Draft
from tensorflow_quantization.targets.reason import Reason, ReasonCode

_PROJECTED_IN_INTEGERS = Reason(ReasonCode.DEFAULT, "its projections are computed in integers, its products in float")


def place_inner_matmuls(draft: Draft, call: Call) -> None:
    """Quantize the operands of the products within the layer, and the kernels of its projections."""
    draft.update(call, COMPUTED_IN_INTEGERS, weights=Trait.PROJECTS in traits(call), inner_matmuls=True)


def place_projections(draft: Draft, call: Call) -> None:
    """Quantize the kernels of the projections, and what these read and write within the layer."""
    draft.update(call, _PROJECTED_IN_INTEGERS, weights=True, projections=True)
