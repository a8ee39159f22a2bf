"""The reasons of a plan, kept in the model: they survive `save`, `load_model` and `clone_model`; `describe` reads them.

Keras saves and clones the configs of layers, and has no place for what belongs to a model as a whole. So each
quantizing layer (a wrapper, or a quantizer that stands alone) holds its own reason in its config, and the first of them
also holds the reasons of all layers and operations that are left alone. A model in which nothing is quantized gets a
layer for this, which computes nothing.
"""

from __future__ import annotations

from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantize.plan import QuantizationPlan
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.wrappers import BaseQuantizeWrapper


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class ReasonsOfFloat(keras.layers.Identity):
    """Holds the reasons of a model in which nothing is quantized, and returns its input.

    Args:
        reasons: as those of a `BaseQuantizeWrapper`.
        **kwargs: those of `keras.layers.Identity`.
    """

    def __init__(self, reasons: dict[str, dict[str, str]] | None = None, **kwargs):
        super().__init__(**kwargs)
        self.reasons = dict(reasons or {})

    def get_config(self):
        return {**super().get_config(), "reasons": {path: dict(reason) for path, reason in self.reasons.items()}}


def store_reasons(model: keras.Model, plan: QuantizationPlan) -> None:
    """Put the reasons of a plan into the layers of the model that was made by it."""
    calls = LayerGraph.trace(model).flatten().calls
    holders = list({id(call.operation): call for call in calls if _holds_reasons(call.operation)}.values())
    for call in holders:
        call.operation.reasons = _as_config(call.path, _reason(plan, call))
    for call in calls:
        if not _holds_reasons(call.operation):
            holders[0].operation.reasons.update(_as_config(call.path, _reason(plan, call)))


def stored_reasons(graph: LayerGraph) -> dict[str, Reason]:
    """The reasons that the layers of a flat graph hold, by path; of a model from an older version there are none."""
    found: dict[str, Reason] = {}
    for call in graph.calls:
        held = call.operation.reasons if _holds_reasons(call.operation) else {}
        for path, reason in held.items():
            here = _moved(path, next(iter(held)), call.path)  # a layer's own reason is the first that it holds
            if here is not None:
                found[here] = Reason(ReasonCode(reason["code"]), reason["text"])
    return found


def _holds_reasons(operation: Any) -> bool:
    return isinstance(operation, (ActivationQuantizer, BaseQuantizeWrapper, ReasonsOfFloat))


def _as_config(path: str, reason: Reason | None) -> dict[str, dict[str, str]]:
    return {} if reason is None else {path: {"code": reason.code.value, "text": reason.text}}


def _reason(plan: QuantizationPlan, call: Call) -> Reason | None:
    """The reason of a call in the quantized model; `None` for what only names an output as before."""
    operation = call.operation
    if isinstance(operation, ReasonsOfFloat):
        return Reason(ReasonCode.UNKNOWN, "nothing is quantized")
    if not _holds_reasons(operation):
        layer = plan.layers.get(call.path)
        if layer is not None and layer.class_name == call.class_name:
            return layer.reason
        product = plan.layers.get(call.path.removesuffix("_activation"))
        if product is None or not product.placement.pre_activation:
            return None
        return Reason(ReasonCode.NO_INTEGER_KERNEL, f"the activation of {product.path}, computed in floats")
    # The plan speaks of the layer that was wrapped, or of the layer or input that the quantizer is after.
    planned = call.path[: len(call.path) - len(call.name)] + call.name.removeprefix("quant_")
    if planned in plan.layers:
        return plan[planned].reason
    reader = planned.rpartition("_input_")[0]  # a quantizer in front of an operation of `keras.ops`
    if reader in plan.layers:
        return Reason(ReasonCode.READ_IN_INTEGERS, f"read by {reader}")
    return plan[planned.removesuffix("_activation")].reason


def _moved(path: str, stored: str, seen: str) -> str | None:
    """A path as it is in a model that holds the quantized one, or that is a part of it.

    Args:
        path: in the model that `quantize_model` returned.
        stored: the path there of the layer that holds the reason.
        seen: its path now.

    Returns:
        `None` for a layer outside of the part.
    """
    if seen.endswith(stored):
        return seen.removesuffix(stored) + path
    outside = stored.removesuffix(seen)
    return path.removeprefix(outside) if path.startswith(outside) else None
