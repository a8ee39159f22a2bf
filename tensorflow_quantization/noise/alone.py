"""What the outputs of a network lose if one layer alone is quantized."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.inputs import model_inputs
from tensorflow_quantization.model.precision import computing_in_float32, in_float32
from tensorflow_quantization.model.weights import variable_of
from tensorflow_quantization.noise.output_noise import OutputNoise, Variant, before_saturation
from tensorflow_quantization.noise.parts import FloatTwin, Observers
from tensorflow_quantization.wrappers import (
    activation_quantizers_in,
    float_path,
    output_quantizer,
    weight_quantizers_in,
    wrappers_in,
)
from tensorflow_quantization.wrappers.quantized_inputs import quantized_inputs


def quantized_calls(graph: LayerGraph) -> dict[str, Call]:
    """Returns the first call of each layer with quantized weights, by the path of the layer in the float model."""
    calls: dict[int, Call] = {}
    for call in graph.calls:
        if weight_quantizers_in(call.operation):
            calls.setdefault(id(call.operation), call)
    return {float_path(call.path): call for call in calls.values()}


def count_weights(call: Call) -> int:
    """Returns the number of quantized weights of a layer."""
    pairs = [(w.layer, name) for w in wrappers_in(call.operation) for name in w.weight_quantizers]
    return sum(int(np.prod(variable_of(*pair).shape)) for pair in pairs)


def noise_alone(
    graph: LayerGraph, reference: LayerGraph, calls: dict[str, Call], batches: list[Any]
) -> dict[str, float]:
    """Returns the noise at the network's outputs if one layer alone is quantized: its weights and what it reads.

    Args:
        graph: the flat graph of the quantized and calibrated model.
        reference: the flat graph of its float model.
        calls: the layers, see `quantized_calls`.
        batches: the samples, in the structure of the model's inputs.

    Returns:
        The noise of each layer, in units of the power of the outputs: 0.01 is 20 dB.

    Raises:
        ValueError: the noise of a layer is NaN or infinite.
    """
    twin = FloatTwin(graph, reference)
    variants = {path: _alone(call, twin) for path, call in calls.items()}
    with (
        computing_in_float32([graph.model, *(call.operation for call in [*graph.calls, *reference.calls])]),
        before_saturation(graph),
    ):
        found = [OutputNoise(graph, twin, in_float32(model_inputs(graph, x))).of(variants) for x in batches]
    noise = {path: float(np.mean([one[path] for one in found])) for path in variants}
    for path, value in noise.items():
        if not np.isfinite(value):
            raise ValueError(
                f"The outputs are NaN or infinite if {path!r} alone is quantized. Check the data, and the weights of "
                "this layer."
            )
    return noise


def _alone(call: Call, twin: FloatTwin) -> Variant:
    """Returns the float model with one quantized layer."""
    operation = call.operation
    own = [q for q in activation_quantizers_in(operation) if q is not output_quantizer(operation)]
    active: Observers = dict.fromkeys([*own, *weight_quantizers_in(operation)])

    def function(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = quantized_inputs(call, args, kwargs)
        return twin.with_quantizers(operation, args, kwargs, active, own=True)

    return Variant(operation, function)
