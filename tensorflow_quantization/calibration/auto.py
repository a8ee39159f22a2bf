"""`least_output_errors`: of the ranges that the methods estimate, those with the least error of what reads the tensors.

An error in a tensor matters as far as the layers that read it let it through: a wide kernel averages rounding errors,
and a clipped value may be the one that decides. So a range is judged by the outputs of these layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from tensorflow_quantization.calibration.entropy import Entropy
from tensorflow_quantization.calibration.estimator import MergeableEstimator
from tensorflow_quantization.calibration.histogram import Histogram
from tensorflow_quantization.calibration.min_max import MinMax
from tensorflow_quantization.calibration.mse import MSE
from tensorflow_quantization.calibration.observation import Observed
from tensorflow_quantization.calibration.percentile import Percentile
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter, infer
from tensorflow_quantization.model.op_traits import moves_data
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme, numerics
from tensorflow_quantization.quantizers.fake_quantize import float32, rounded
from tensorflow_quantization.quantizers.observing import Observer, observing, unquantized
from tensorflow_quantization.wrappers import activation_quantizers_in, output_quantizer
from tensorflow_quantization.wrappers.quantized_inputs import quantized_inputs, source_quantizer
from tensorflow_quantization.wrappers.quantized_once import quantized_once

Range = tuple[float, float]

#: What makes the estimators of the candidates. The first decides if nothing reads a tensor; of equal errors, the first
#: counts.
CANDIDATES: tuple[Callable[[], MergeableEstimator], ...] = (
    MSE,
    MinMax,
    lambda: Percentile(99.999),
    Percentile,
    lambda: Percentile(99.9),
    Entropy,
)


class AllMethods(Histogram):
    """Collects what all methods need: the statistics of a histogram.

    Examples:
        >>> estimator = AllMethods()
        >>> estimator.update(np.append(np.linspace(-1.0, 1.0, 9999), 50.0))  # one outlier
        >>> ranges = estimator.ranges(QuantizationScheme())
        >>> print(len(ranges) > 2, max(high for _, high in ranges))
        True 50.0
    """

    def range(self, scheme):
        return self.ranges(scheme)[0]

    def ranges(self, scheme: QuantizationScheme) -> list[Range]:
        """Returns the range of each of `CANDIDATES`, without those that have the scale and zero point of another."""
        found: dict[tuple[float, ...], Range] = {}
        for make in CANDIDATES:
            if make is Entropy and scheme.floating:
                continue
            estimator = make()
            estimator.merge(**self.merged())
            range_ = estimator.range(scheme)
            found.setdefault(tuple(map(float, _parameters(range_, scheme))), range_)
        return list(found.values())


def least_output_errors(
    model: keras.Model,
    quantizers: Sequence[ActivationQuantizer],
    observed: Sequence[Observed],
    batches: Iterable[Any],
) -> list[Range]:
    """Returns a range for each observed quantizer: the candidate with the least error of the layers that read it.

    The model runs with quantized weights and float activations. Each layer is also computed with one tensor of its
    inputs quantized, for each candidate of the tensor. The error is the mean of (output - exact output)**2 over all
    data, in units of the mean of (exact output)**2; the errors of several layers add up. A layer that only moves data
    is no reader, the layers after it are. Memory does not grow with the batches.

    Args:
        model: the quantized model.
        quantizers: all of its activation quantizers.
        observed: the quantizers with a range of their own. Their estimators are `AllMethods`, which saw the data.
        batches: the data, as `predict_on_batch` takes it.
    """
    graph = LayerGraph.trace(model).flatten()
    contests = [
        _Contest([q for q in quantizers if q.range is one.quantizer.range], one.estimator.ranges(one.quantizer.scheme))  # type: ignore[attr-defined]
        for one in observed
    ]
    judge = _Judge(graph, [contest for contest in contests if len(contest.ranges) > 1])
    with quantized_once(model), observing(dict.fromkeys(quantizers, unquantized)):
        Interpreter(graph).run_batches(batches, judge)
    return [contest.winner for contest in contests]


@dataclass(eq=False)
class _Contest:
    """The candidates for one range.

    Attributes:
        quantizers: those that have this range.
        ranges: the candidates.
        errors: for each call that reads a quantized tensor, by its id: the squared error of each candidate, and at last
            the square of the exact output, all summed up.
    """

    quantizers: list[ActivationQuantizer]
    ranges: list[Range]
    errors: dict[int, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.array(0.0)))

    @property
    def winner(self) -> Range:
        ratios = [sums[:-1] / sums[-1] for sums in self.errors.values() if np.isfinite(sums).all() and sums[-1] > 0]
        return self.ranges[int(np.argmin(sum(ratios)))] if ratios else self.ranges[0]

    def observers(self, range_: Range) -> dict[Any, Observer]:
        """Returns what quantizes with a candidate."""
        observer = _rounding(range_, self.quantizers[0].scheme)
        return dict.fromkeys(self.quantizers, observer)


class _Judge:
    """Computes calls, and what each candidate changes about their outputs: the call function of an `Interpreter`."""

    def __init__(self, graph: LayerGraph, contests: Sequence[_Contest]):
        contest_of = {quantizer: contest for contest in contests for quantizer in contest.quantizers}
        self._contests: dict[int, list[_Contest]] = {}
        for call in graph.calls:
            read = [] if moves_data(call) else [*_inner_quantizers(call), *map(source_quantizer, call.inputs)]
            found = [contest_of[quantizer] for quantizer in read if quantizer in contest_of]
            self._contests[id(call)] = list(dict.fromkeys(found))

    def __call__(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        exact = _outputs(call, args, kwargs)
        for contest in self._contests[id(call)]:
            sums = [self._error(contest, range_, exact, call, args, kwargs) for range_ in contest.ranges]
            sums.append(_squares(tree.flatten(exact)))
            contest.errors[id(call)] = contest.errors[id(call)] + np.array(sums)
        return exact

    @staticmethod
    def _error(contest: _Contest, range_: Range, exact: Any, call: Call, args: Any, kwargs: Any) -> float:
        with observing(contest.observers(range_)):
            outputs = _outputs(call, *quantized_inputs(call, args, kwargs, contest.quantizers))
        return _squares(tree.flatten(outputs), tree.flatten(exact))


def _inner_quantizers(call: Call) -> list[ActivationQuantizer]:
    """Returns the quantizers whose tensors a call reads itself: all but the quantizer of its output."""
    return [q for q in activation_quantizers_in(call.operation) if q is not output_quantizer(call.operation)]


def _outputs(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with keras.StatelessScope():  # states, which each call would move, stay
        return infer(call.operation, *args, **kwargs)


def _squares(outputs: list[Any], exact: list[Any] | None = None) -> float:
    """Returns the sum of squares of all float outputs, or of their differences from the exact ones."""
    total = 0.0
    for index, y in enumerate(outputs):
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(y.dtype)):
            difference = float32(y) if exact is None else float32(y) - float32(exact[index])
            total += float(float32_array(ops.sum(ops.square(difference))))
    return total


def _rounding(range_: Range, scheme: QuantizationScheme) -> Observer:
    scale, zero_point = _parameters(range_, scheme)
    return lambda x: rounded(x, scale, zero_point, scheme)


def _parameters(range_: Range, scheme: QuantizationScheme) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale and zero point as a quantizer with this range has them, in float32."""
    low, high = np.array(range_, np.float32)
    scale, zero_point = numerics.scale_from_range(low, high, scheme, np)
    return np.asarray(scale, np.float32), np.asarray(zero_point, np.float32)
