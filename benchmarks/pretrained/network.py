"""What the benchmarks need of a trained network, and where its weights are kept."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import keras
import numpy as np

#: Downloaded packages and trained weights; git ignores it.
CACHE = pathlib.Path(__file__).parents[2] / ".cache" / "trained"


class UnavailableError(Exception):
    """The weights or the data of a network cannot be had on this machine; the message says why."""


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside to write to, renamed at the end: a file of the right name is never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{path.name}")
    yield partial
    partial.rename(path)


def load_or_train(model: keras.Model, name: str, train: Callable[[], object]) -> None:
    """Gives a model the weights that the cache has under this name; if there are none, trains it and keeps them."""
    weights = CACHE / f"{name}.weights.h5"
    if weights.exists():
        model.load_weights(weights)
        return
    train()
    with written_whole(weights) as partial:
        model.save_weights(partial)


@dataclasses.dataclass
class TrainedNetwork:
    """A network with trained weights, and real inputs for it.

    Args:
        name: the name in `trained.NAMES`.
        model: float32, without a softmax at the end.
        calibration: inputs for calibration, without labels.
        evaluation: inputs to measure on; none of them is among `calibration`.
        labels: of `evaluation`, int64: classes of shape (n,), or 1 and 0 for each output, in the shape of the outputs,
            where an output above 0 means 1; None where nobody labelled the inputs.
        targets: what the outputs for `evaluation` should be, float32; None where that is not known.
    """

    name: str
    model: keras.Model
    calibration: np.ndarray
    evaluation: np.ndarray
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None

    def accuracy(self) -> float | None:
        """The share of right answers on `evaluation`; None without labels."""
        if self.labels is None:
            return None
        return right(self.model.predict(self.evaluation, batch_size=256, verbose=0), self.labels)


def right(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The share of outputs whose answer is the label's; see `TrainedNetwork`."""
    answers = outputs > 0 if outputs.shape == labels.shape else outputs.argmax(-1)
    return float(np.mean(answers == labels))
