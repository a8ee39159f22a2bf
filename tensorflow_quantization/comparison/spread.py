"""`Spread`: a few samples of data of any length, from all over it."""

from __future__ import annotations

import numpy as np

from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import is_batched


class Spread:
    """Takes batches, and keeps samples in even distances of them, so that sorted data counts with all its parts.

    Args:
        graph: the graph of the model that takes the batches.
        count: the number of samples to keep at most. A model with a fixed batch size needs one batch. Of inputs without
            a common batch axis the first batch is kept; of samples of several sizes, those of the first one's.
    """

    def __init__(self, graph: LayerGraph, count: int):
        self._batched = is_batched(graph)
        self._count = (graph.inputs[0].shape[0] or count) if self._batched else 1
        self._every, self._seen = 1, 0
        self._kept: list[list[np.ndarray]] = []

    def add(self, batch: list[np.ndarray]) -> None:
        """Adds a batch, an array for each input."""
        if not self._batched:
            self._kept = self._kept or [batch]
            return
        shapes = [array.shape[1:] for array in batch]
        if self._kept and shapes != [array.shape[1:] for array in self._kept[0]]:
            return
        for index in range(len(batch[0])):
            if self._seen % self._every == 0:
                self._kept.append([array[index : index + 1].copy() for array in batch])
            self._seen += 1
            if len(self._kept) > 2 * self._count:  # so at least `count` are left
                self._kept = self._kept[::2]
                self._every *= 2

    def samples(self) -> list[np.ndarray]:
        """Returns the samples as one batch; `add` was called before."""
        places = np.linspace(0, len(self._kept) - 1, min(self._count, len(self._kept))).round().astype(int)
        return [np.concatenate(arrays) for arrays in zip(*(self._kept[i] for i in places), strict=True)]
