"""`sensitivity`: how much the output of a network loses with each layer, alone, in fewer bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.calibration import calibrate
from tensorflow_quantization.mixed_precision.precision import precisions
from tensorflow_quantization.mixed_precision.sensitivity_result import LayerSensitivity, Sensitivity
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import first_batches
from tensorflow_quantization.noise.alone import count_weights, noise_alone, quantized_calls
from tensorflow_quantization.quantize import QuantizationSpec, quantize_model
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.quantize.spec import SpecIndex
from tensorflow_quantization.text.arguments import check_count, suggests_arguments
from tensorflow_quantization.text.warn import each_warning_once
from tensorflow_quantization.wrappers import inner_layer

#: Samples that are used for calibration, as in `post_training_quantize`.
CALIBRATION_SAMPLES = 256


@suggests_arguments
def sensitivity(
    model: keras.Model,
    data: Any,
    *,
    target: str | None = None,
    weight_bits: int | Iterable[int] | None = None,
    activation_bits: int | Iterable[int] = (8,),
    quantization_spec: QuantizationSpec | None = None,
    method: str = "mse",
    samples: int = 64,
) -> Sensitivity:
    """Returns how much noise each layer, quantized alone, adds to the outputs of the network.

    For each layer whose weights `quantize_model` quantizes, and each number of bits, the float model runs with only
    this layer quantized: its weights, and what it reads. The error of the network's outputs, before a last softmax,
    sigmoid, tanh or argmax, is compared with their power. No labels are needed, and no gradients, so that the result is
    the measured effect and no estimate of it. A layer without quantized weights, an embedding or a pool, has no row:
    what it returns is quantized with the layers that read it.

    For each number of bits, the time is that of a calibration, and of about n / 2 runs of the float model, operation by
    operation, on the samples for n layers.

    Examples:
        >>> result = sensitivity(model, images, target="onnxruntime", weight_bits=(4, 8))
        >>> [layer.layer for layer in result.layers]
        ['conv', 'scores']
        >>> result["conv"].snr["W8A8"] > result["conv"].snr["W4A8"]
        True

    Args:
        model: the float model; unchanged.
        data: the calibration set as `calibrate` takes it. The first 256 samples are used. Of (x, y) pairs only x is
            used.
        target: the runtime, as in `quantize_model`; default `None`.
        weight_bits: int or several, 2 to 8; default `None`: (4, 8), for LiteRT (8,).
        activation_bits: int or several, 2 to 8; default (8,). Each combination with `weight_bits` is tried.
        quantization_spec: `QuantizationSpec` as in `quantize_model`; default `None`. Layers that it names keep the
            precision of their entry: they have no row.
        method: how ranges are estimated, as in `calibrate`; default "mse".
        samples: int, the samples on which the noise is measured, in whole batches; default 64.

    Returns:
        A `Sensitivity`: print it, or read `.layers`.

    Raises:
        TypeError, ValueError: as `quantize_model` and `calibrate`; `samples` is no int above 0; or the outputs are NaN
            or infinite (the message names the layer).
    """
    check_count("samples", samples)
    if weight_bits is None:
        weight_bits = (8,) if target == "litert" else (4, 8)
    tried = precisions(weight_bits, activation_bits)
    arguments: dict[str, Any] = {"target": target, "quantization_spec": quantization_spec}
    with each_warning_once():
        for precision in tried:  # raises what `quantize_model` would raise, before any work
            plan_model(model, **precision.as_arguments(), **arguments)
        reference = LayerGraph.trace(model).flatten()
        batches = first_batches(reference, data, CALIBRATION_SAMPLES, "The calibration data")
        used = first_batches(reference, batches, samples or 1)
        named = _named(reference, quantization_spec)
        rows: dict[str, LayerSensitivity] = {}
        for precision in tried:
            quantized = quantize_model(model, **precision.as_arguments(), **arguments)
            calibrate(quantized, batches, method=method, verbose=0)
            graph = LayerGraph.trace(quantized).flatten()
            calls = {path: call for path, call in quantized_calls(graph).items() if path not in named}
            for path, noise in noise_alone(graph, reference, calls, used).items():
                layer = inner_layer(calls[path].operation)
                row = LayerSensitivity(path, type(layer).__name__, count_weights(calls[path]), {})
                rows.setdefault(path, row).noise[precision] = noise
    return Sensitivity(model.name, list(rows.values()), tried, sum(len(tree.flatten(x)[0]) for x in used))


def _named(graph: LayerGraph, spec: QuantizationSpec | None) -> set[str]:
    """Returns the paths of the layers for which a spec has an entry."""
    if spec is None:
        return set()
    index = SpecIndex(spec)
    return {c.path for c in graph.calls if index.find(c.name, c.class_names_in_spec, c.path) is not None}
