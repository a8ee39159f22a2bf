"""`search`: the precision of each layer, for a budget of accuracy, bytes or latency."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from tensorflow_quantization.calibration import calibrate
from tensorflow_quantization.mixed_precision.budget import BYTES, LATENCY, Budget, parse_budget
from tensorflow_quantization.mixed_precision.search_result import SearchResult
from tensorflow_quantization.mixed_precision.sensitivity import CALIBRATION_SAMPLES, sensitivity
from tensorflow_quantization.mixed_precision.trials import Number, Quantize, Trials
from tensorflow_quantization.model.graph import LayerGraph, check_is_model
from tensorflow_quantization.model.inputs import first_batches, model_inputs
from tensorflow_quantization.quantize import QuantizationSpec, quantize_model
from tensorflow_quantization.text.arguments import check_count, suggests_arguments
from tensorflow_quantization.text.warn import each_warning_once


@suggests_arguments
def search(
    model: keras.Model,
    data: Any,
    evaluate: Number,
    *,
    budget: dict[str, float],
    target: str | None = None,
    weight_bits: int | Iterable[int] | None = None,
    activation_bits: int | Iterable[int] = (8,),
    float_layers: bool = True,
    quantization_spec: QuantizationSpec | None = None,
    quantize: Quantize | None = None,
    measure: Number | str | None = None,
    method: str = "mse",
    evaluations: int = 20,
    verbose: int = 1,
) -> SearchResult:
    """Finds the precision of each layer: the bits of its weights and activations, or float.

    `sensitivity` says what each layer costs in noise. A knapsack over the layers then proposes the choices that no
    other choice beats in noise and cost, and some of them are really quantized and evaluated. Nothing is random.

    Examples:
        >>> expected = model.predict(images, verbose=0).argmax(-1)
        >>> def agreement(quantized):
        ...     return float((quantized.predict(images, verbose=0).argmax(-1) == expected).mean())
        >>> found = search(
        ...     model, images, agreement, budget={"bytes": 400}, target="onnxruntime", evaluations=4, verbose=0
        ... )
        >>> found.best.cost <= 400, len(found.evaluations) <= 4
        (True, True)
        >>> quantized = quantize_model(model, quantization_spec=found.spec, target="onnxruntime")

    Args:
        model: the float model; unchanged.
        data: the calibration set as `calibrate` takes it. The first 256 samples are used. Of (x, y) pairs only x is
            used.
        evaluate: a function of a quantized, calibrated model that returns a number, higher is better: the accuracy on
            a validation set, for example. The model is compiled like `model`. The float model is evaluated, too.
        budget: a dict with one entry:

            - "drop": the metric may be so much lower than of the float model, in units of the metric. The cheapest
              choice is looked for.
            - "bytes": all weights of the model may take so many bytes: two of 4 bits in one byte, 4 bytes for each
              weight in float. The choice with the best metric is looked for.
            - "latency": `measure` may return so many seconds. The choice with the best metric is looked for.
        target: the runtime, as in `quantize_model`; default `None`.
        weight_bits: int or several, 2 to 8; default `None`: (4, 8), for LiteRT (8,).
        activation_bits: int or several, 2 to 8; default (8,). A layer has any combination with `weight_bits`.
        float_layers: bool; layers may stay in float. Default `True`.
        quantization_spec: `QuantizationSpec` with entries for layers that are decided; default `None`. The result has
            these entries, too.
        quantize: a function of the float model and a `QuantizationSpec` that returns a quantized model with its ranges,
            such as `post_training_quantize` with all arguments but the spec. `None` (default): `quantize_model`, then
            `calibrate`.
        measure: a function of a quantized model that returns its latency in seconds; or "onnxruntime" or "openvino":
            the file that `export_onnx` writes is run there on one sample. `None` (default): bytes are the cost, and
            for a budget of latency the target measures. The latency of each layer is measured once for each number of
            bits of activations: n + 1 measurements for n layers, and one for each evaluation.
        method: how ranges are estimated, as in `calibrate`; default "mse".
        evaluations: int, the greatest number of calls of `evaluate`, without the float model; default 20.
        verbose: 1 (default) prints a line for each evaluation, 0 nothing.

    Returns:
        A `SearchResult`: print it, pass `.spec` to `quantize_model`, or read `.front` and `.evaluations`.

    Raises:
        TypeError: as `quantize_model` and `calibrate`; `evaluate` is no function, or returns no number; or `budget` is
            no dict of a number.
        BudgetError: nothing that was evaluated is within the budget; a `ValueError` whose `evaluations` has it all.
        ValueError: as `quantize_model` and `calibrate`; `budget` is unknown or cannot be reached (the message says
            what can); no layer is left to decide on; or `evaluate` or `measure` returns NaN or infinity.
        ImportError: the runtime that measures is not installed.
    """
    limit = parse_budget(budget)
    check_count("evaluations", evaluations)
    for name, function in (("evaluate", evaluate), ("quantize", quantize)):
        if not callable(function) and (name, function) != ("quantize", None):
            raise TypeError(f"{name} must be a function, got {function!r}.")
    check_is_model(model)
    batches = first_batches(LayerGraph.trace(model), data, CALIBRATION_SAMPLES, "The calibration data")
    latency = _measure(measure, limit, target, model, batches)

    def calibrated(model: keras.Model, spec: QuantizationSpec) -> keras.Model:
        quantized = quantize_model(model, quantization_spec=spec, target=target)
        return calibrate(quantized, batches, method=method, verbose=0)

    with each_warning_once():
        sensitive = sensitivity(
            model,
            batches,
            target=target,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            quantization_spec=quantization_spec,
            method=method,
        )
        if not sensitive.layers:
            raise ValueError(
                f"Model {model.name!r} has no layer to decide on: quantization_spec names all layers with quantized "
                "weights. Leave out the entries of the layers to search over."
            )
        trials = Trials(model, target, quantization_spec, evaluate, quantize or calibrated, latency, verbose)
        return trials.search(sensitive, limit, evaluations, float_layers)


def _measure(
    measure: Number | str | None, budget: Budget, target: str | None, model: keras.Model, batches: list[Any]
) -> Number | None:
    """Returns the function that measures latencies; `None` if bytes are the cost."""
    if measure is None and budget.kind == LATENCY:
        if not isinstance(target, str):
            raise ValueError(
                "A budget of latency needs measure: a function of the quantized model that returns seconds, or the "
                "name of a runtime. With a target, its runtime measures."
            )
        measure = target
    if measure is not None and budget.kind == BYTES:
        raise ValueError(f"A budget of bytes measures no latency, got measure={measure!r}. Leave it out.")
    if measure is None or callable(measure):
        return measure
    from tensorflow_quantization.mixed_precision.latency import latency_in  # loads the ONNX libraries

    graph = LayerGraph.trace(model)
    batch = model_inputs(graph, batches[0])
    return latency_in(measure, batch if any(t.shape[0] is not None for t in graph.inputs) else [x[:1] for x in batch])
