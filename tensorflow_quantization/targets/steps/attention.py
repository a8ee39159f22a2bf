"""Attention: the matrix products of activations within the layer."""

from __future__ import annotations

from tensorflow_quantization.model.graph import Call
from tensorflow_quantization.model.op_traits import Trait, traits
from tensorflow_quantization.targets.draft import COMPUTED_IN_INTEGERS, Draft


def place_inner_matmuls(draft: Draft, call: Call) -> None:
    """Quantize the operands of the products within the layer, and the kernels of its projections."""
    draft.update(call, COMPUTED_IN_INTEGERS, weights=Trait.PROJECTS in traits(call), inner_matmuls=True)
