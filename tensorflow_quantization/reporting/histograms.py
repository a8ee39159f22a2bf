"""`activation_histograms`, `weight_histogram`: what quantizers quantize, counted in a few bins."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.calibration.calibrate import activation_quantizers, layer_paths
from tensorflow_quantization.calibration.histogram import Histogram
from tensorflow_quantization.calibration.observation import Observed, calibrating
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.text.messages import plain_errors

#: Bins of a histogram in the report.
BINS = 48

#: (the least value, the greatest value, the counts in equal bins between them)
Counts = tuple[float, float, list[int]]


class Values(Histogram):
    """Counts values, for a picture."""

    def range(self, scheme):
        return self.low, self.high

    def coarse(self) -> Counts:
        """The counts in `BINS` bins between the least and the greatest value."""
        return _counts(self.centers, self.low, self.high, self.counts)


def activation_histograms(model: keras.Model, data: Any) -> dict[int, Counts]:
    """Returns the histogram of what each activation quantizer of a model gets, by the id of the quantizer.

    No quantizer quantizes meanwhile, so these are the values of the float computation.

    Args:
        model: a quantized model.
        data: see `calibrate`.

    Raises:
        ValueError: `data` does not fit the inputs of the model, or a value is NaN or infinite.
    """
    quantizers, paths = activation_quantizers(model), layer_paths(model)
    observed = [Observed(quantizer, paths[id(quantizer)], Values()) for quantizer in quantizers]
    graph = LayerGraph.trace(model)
    with calibrating(model, quantizers, observed) as observation:
        for arrays in input_batches(graph, data, BATCH_SIZE, "data"):
            with plain_errors():
                observation.run(tree.pack_sequence_as(graph.input_structure, arrays))
    return {id(one.quantizer): one.estimator.coarse() for one in observed if one.seen}  # type: ignore[attr-defined]


def weight_histogram(weight: np.ndarray) -> Counts:
    """Returns the histogram of a weight."""
    values = weight.ravel().astype(np.float64)
    return _counts(values, float(values.min()), float(values.max()), None)


def _counts(values: np.ndarray, low: float, high: float, weights: np.ndarray | None) -> Counts:
    # A bin in which the least or the greatest value lies may have its center outside of them.
    inside = np.clip(values, low, high)
    counts, _ = np.histogram(inside, BINS, (low, high) if low < high else (low - 0.5, low + 0.5), weights=weights)
    return low, high, counts.astype(int).tolist()
