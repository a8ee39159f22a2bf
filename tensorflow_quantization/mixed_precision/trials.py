"""`Trials`: quantizes and evaluates what the knapsack proposes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tensorflow_quantization.calibration.calibrate import check_calibrated
from tensorflow_quantization.mixed_precision.budget import DROP, Budget, cost_text
from tensorflow_quantization.mixed_precision.explore import explore, pareto
from tensorflow_quantization.mixed_precision.knapsack import Proposal, proposals
from tensorflow_quantization.mixed_precision.precision import FLOAT, Precision, bytes_of_weights, spec_of
from tensorflow_quantization.mixed_precision.search_result import BudgetError, Evaluation, Front, SearchResult
from tensorflow_quantization.mixed_precision.sensitivity_result import LayerSensitivity, Sensitivity
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.noise.alone import quantized_calls
from tensorflow_quantization.quantize import QuantizationSpec, quantize_model
from tensorflow_quantization.wrappers import weight_quantizers_in

Quantize = Callable[[keras.Model, QuantizationSpec], keras.Model]
Number = Callable[[keras.Model], float]


class Trials:
    """Quantizes a model in many ways.

    Args:
        model, target, evaluate, quantize, verbose: see `search`.
        base: entries for layers that are decided; `None`: none.
        latency: measures a quantized model, in seconds; `None`: bytes are the cost.
    """

    def __init__(
        self,
        model: keras.Model,
        target: str | None,
        base: QuantizationSpec | None,
        evaluate: Number,
        quantize: Quantize,
        latency: Number | None,
        verbose: int,
    ):
        self.model, self.target, self.base, self.verbose = model, target, base, verbose
        self.evaluate, self.quantize, self.latency = evaluate, quantize, latency

    def search(self, sensitive: Sensitivity, budget: Budget, count: int, float_layers: bool) -> SearchResult:
        """Returns the best choice within a budget, after at most `count` evaluations."""
        options = [_options(layer, float_layers, self.latency is not None) for layer in sensitive]
        fixed, costs = self._costs(sensitive, options)
        noises = [[x.noise.get(p, 0.0) for p in own] for x, own in zip(sensitive, options, strict=True)]
        float_model = tuple(own.index(FLOAT) if FLOAT in own else -1 for own in options)

        def allowed(way: Proposal) -> bool:
            # With all layers in float there is nothing to quantize.
            return way.choices != float_model and (budget.kind == DROP or fixed + way.cost <= budget.limit)

        ways = list(proposals(costs, noises))
        if float_model in {way.choices for way in ways} and not any(map(allowed, ways)):
            self._check_float(fixed + sum(own[i] for own, i in zip(costs, float_model, strict=True)), budget)
        self._check_reachable(list(filter(allowed, ways)), fixed, costs, budget)
        reference = _finite(self.evaluate(self.model), "evaluate", "the float model")
        self._report(f"float: {reference:.6g}")
        made: list[Evaluation] = []

        def trial(way: Proposal) -> Evaluation:
            chosen = {x.layer: own[i] for x, own, i in zip(sensitive, options, way.choices, strict=True)}
            noise = sum(own[i] for own, i in zip(noises, way.choices, strict=True))
            made.append(self._trial(chosen, fixed + way.cost, noise))
            self._report(f"{len(made)}/{count}: {self._text(made[-1])}")
            return made[-1]

        threshold = reference - budget.limit if budget.kind == DROP else None
        explore(costs, noises, trial, count, reference, threshold, allowed)
        if threshold is not None:
            enough = [one for one in made if one.metric >= threshold]
            best = min(enough, key=lambda one: (one.cost, -one.metric), default=None)
        else:
            within = [one for one in made if one.cost <= budget.limit]
            best = max(within, key=lambda one: (one.metric, -one.cost), default=None)
        if best is None:
            raise BudgetError(budget, self._nearest(budget, made), reference, made)
        front = Front(pareto(made), reference, self.latency is not None)
        return SearchResult(self.model.name, budget, best, reference, made, front, sensitive)

    def _costs(self, sensitive: Sensitivity, options: list[list[Precision]]) -> tuple[float, list[list[float]]]:
        """Returns what is spent in any case, and the cost of each option of each layer."""
        most = {layer.layer: next(iter(layer.noise)) for layer in sensitive}
        if self.latency is None:
            quantized = quantize_model(self.model, quantization_spec=spec_of(most, self.base), target=self.target)
            costs = [[float(p.bytes(x.weights)) for p in own] for x, own in zip(sensitive, options, strict=True)]
            spent = sum(most[x.layer].bytes(x.weights) for x in sensitive)
            return bytes_of_weights(self.model, quantized) - spent, costs
        fixed = self._latency(most)
        found: list[list[float]] = []
        for layer, own in zip(sensitive, options, strict=True):
            at_most = most[layer.layer]
            changed = [0.0 if p == at_most else self._latency({**most, layer.layer: p}) - fixed for p in own]
            found.append(changed)
        return fixed, found

    def _latency(self, chosen: dict[str, Precision]) -> float:
        seconds = self.latency(self.quantize(self.model, spec_of(chosen, self.base)))  # type: ignore[misc]
        return _finite(seconds, "measure", _names(chosen))

    def _check_reachable(self, ways: list[Proposal], fixed: float, costs: list[list[float]], budget: Budget) -> None:
        if not ways:
            least = cost_text(fixed + sum(map(min, costs)), self.latency is not None)
            raise ValueError(
                f"The budget of {budget} cannot be reached: the least is {least}. Allow more, or pass fewer bits."
            )

    def _check_float(self, cost: float, budget: Budget) -> None:
        if cost <= budget.limit:
            raise ValueError(
                f"All layers in float cost {cost_text(cost, self.latency is not None)}, and no quantized layer costs "
                "less: the float model is the best within the budget. Pass float_layers=False to search over quantized "
                "layers."
            )

    def _trial(self, chosen: dict[str, Precision], cost: float, noise: float) -> Evaluation:
        spec = spec_of(chosen, self.base)
        quantized = self.quantize(self.model, spec)
        _check_quantized(quantized, chosen)
        metric = _finite(self.evaluate(quantized), "evaluate", _names(chosen))
        if self.latency is not None:
            cost = _finite(self.latency(quantized), "measure", _names(chosen))
        return Evaluation(chosen, metric, cost, noise, spec)

    def _text(self, one: Evaluation) -> str:
        return f"{one.metric:.6g}, {cost_text(one.cost, self.latency is not None)}, {one.counts}"

    def _report(self, line: str) -> None:
        if self.verbose:
            print(line)

    def _nearest(self, budget: Budget, made: Sequence[Evaluation]) -> str:
        if budget.kind == DROP:
            found, most = max(made, key=lambda one: one.metric), "the best metric"
        else:
            found, most = min(made, key=lambda one: one.cost), "the least"
        return f"{most} found was {self._text(found)}"


def _options(layer: LayerSensitivity, float_layers: bool, is_latency: bool) -> list[Precision]:
    """Returns the precisions that a layer may have.

    Kernels compute in the bits of activations, whatever the bits of weights are: fewer bits of weights save no time.
    """
    options = list(layer.noise)
    if is_latency:
        options = list({precision.activation_bits: precision for precision in options[::-1]}.values())[::-1]
    return [*([FLOAT] if float_layers else []), *options]


def _check_quantized(model: Any, chosen: dict[str, Precision]) -> None:
    """Raises: TypeError: it is no model. ValueError: it is not quantized as chosen, or not calibrated."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"quantize must return a keras.Model, got {model!r}.")
    check_calibrated(model)
    calls = quantized_calls(LayerGraph.trace(model).flatten())
    for path, precision in chosen.items():
        quantizers = weight_quantizers_in(calls[path].operation) if path in calls else []
        found = {quantizer.scheme.bits for quantizer in quantizers}
        if found != (set() if precision == FLOAT else {precision.weight_bits}):
            raise ValueError(
                f"quantize returned a model with {path!r} in {_bits_text(found)}, not in {precision}. Pass the spec "
                "that it gets on to quantize_model."
            )


def _bits_text(bits: set[int]) -> str:
    return f"weights of {', '.join(map(str, sorted(bits)))} bits" if bits else "float"


def _names(chosen: dict[str, Precision]) -> str:
    return "the model with " + ", ".join(f"{path!r} in {precision}" for path, precision in chosen.items())


def _finite(value: Any, function: str, what: str) -> float:
    """Returns what a function of the user's returned as a float.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN or infinite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{function} must return a number, got {value!r} for {what}.") from error
    if not math.isfinite(number):
        raise ValueError(f"{function} returned {number} for {what}. Return a finite number.")
    return number + 0.0  # no -0.0
