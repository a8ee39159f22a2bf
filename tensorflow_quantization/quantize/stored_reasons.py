"""The reasons of a plan, stored in the model: `save`, `load_model` and `clone_model` keep them, `describe` reads them.

Keras saves and clones the configs of layers, but has no place for data of the model as a whole. So each quantizing
layer (a wrapper or a separate quantizer) stores its own reason in its config. The first of them also stores the reasons
of all layers and operations that are not quantized. A model with no quantized layer gets a `ReasonsOfFloat` for this.
"""

from __future__ import annotations

from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantize.plan import QuantizationPlan
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, float_name


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class ReasonsOfFloat(keras.layers.Identity):
    """An identity layer that stores the reasons of a model in which nothing is quantized.

    Args:
        reasons: by path, a dict with the keys "code" and "text"; `None` (default): no reasons.
        **kwargs: arguments of `keras.layers.Identity`.
    """

    def __init__(self, reasons: dict[str, dict[str, str]] | None = None, **kwargs):
        super().__init__(**kwargs)
        self.reasons = dict(reasons or {})

    def get_config(self):
        return {**super().get_config(), "reasons": {path: dict(reason) for path, reason in self.reasons.items()}}


def store_reasons(model: keras.Model, plan: QuantizationPlan) -> None:
    """Store the reasons of a plan in the layers of the quantized model."""
    calls = LayerGraph.trace(model).flatten().calls
    holders = list({id(call.operation): call for call in calls if _holds_reasons(call.operation)}.values())
    for call in holders:
        call.operation.reasons = _as_config(call.path, _reason(plan, call))
    for call in calls:
        if not _holds_reasons(call.operation):
            holders[0].operation.reasons.update(_as_config(call.path, _reason(plan, call)))


def stored_reasons(graph: LayerGraph) -> dict[str, Reason]:
    """The reasons that the layers of a flat graph store, by path. A model of an older version stores none."""
    found: dict[str, Reason] = {}
    for call in graph.calls:
        held = call.operation.reasons if _holds_reasons(call.operation) else {}
        for path, reason in held.items():
            here = _moved(path, next(iter(held)), call.path)  # the first stored reason is the layer's own
            if here is not None:
                found[here] = Reason(ReasonCode(reason["code"]), reason["text"])
    return found


def _holds_reasons(operation: Any) -> bool:
    return isinstance(operation, (ActivationQuantizer, BaseQuantizeWrapper, ReasonsOfFloat))


def _as_config(path: str, reason: Reason | None) -> dict[str, dict[str, str]]:
    return {} if reason is None else {path: {"code": reason.code.value, "text": reason.text}}


def _reason(plan: QuantizationPlan, call: Call) -> Reason | None:
    """The reason for a call in the quantized model; `None` for an Identity that only restores the name of an output."""
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
        return Reason(ReasonCode.NO_INTEGER_KERNEL, f"the activation of {product.path}, computed in float")
    # The plan has the name of the wrapped layer, or of the layer or input before the quantizer.
    planned = call.path[: len(call.path) - len(call.name)] + float_name(call.name)
    if planned in plan.layers:
        return plan[planned].reason
    reader = planned.rpartition("_input_")[0]  # a quantizer in front of an operation of `keras.ops`
    if reader in plan.layers:
        return Reason(ReasonCode.READ_IN_INTEGERS, f"read by {reader}")
    return plan[planned.removesuffix("_activation")].reason


def _moved(path: str, stored: str, seen: str) -> str | None:
    """The path of a layer in a model that contains the quantized model, or that is a part of it.

    Args:
        path: the path of the layer in the model that `quantize_model` returned.
        stored: the path, in that same model, of the layer that stores the reason.
        seen: the path, in the present model, of the layer that stores the reason.

    Returns:
        The path in the present model; `None` if the layer is not part of it.
    """
    if seen.endswith(stored):
        return seen.removesuffix(stored) + path
    outside = stored.removesuffix(seen)
    return path.removeprefix(outside) if path.startswith(outside) else None
