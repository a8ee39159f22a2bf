"""`calibrating`: the quantizers of a model observe what they get, inside the compiled model where they can."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from tensorflow_quantization.calibration.estimator import MergeableEstimator, RangeEstimator
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.quantizers.fake_quantize import float32
from tensorflow_quantization.quantizers.observing import observing, unquantized
from tensorflow_quantization.text.warn import muted
from tensorflow_quantization.wrappers.quantized_once import quantized_once

#: The functions that a Keras model has compiled. They do not see observers that are set later.
_COMPILED = ("train_function", "test_function", "predict_function")


#: The keys of the statistics of outputs, before their indices.
_OUTPUT = "output "


@dataclass(eq=False)
class Observed:
    """A quantizer, and what it has observed.

    Attributes:
        quantizer: the quantizer.
        path: its path, for errors.
        estimator: what estimates its range.
        seen: whether data reached it.
        is_finite: whether all data was finite. `Observation.run` raises the error: Keras wraps what calls raise.
    """

    quantizer: ActivationQuantizer
    path: str
    estimator: RangeEstimator
    seen: bool = False
    is_finite: bool = True

    def update(self, tensor: Any) -> Any:
        """Updates the estimator with a tensor that has values, and returns the tensor."""
        x = float32_array(tensor)
        if x.size and self._is_finite(x):
            self.estimator.update(x)
        return tensor

    def merge(self, statistics: dict[str, np.ndarray]) -> None:
        """Updates the estimator with statistics of a `MergeableEstimator`."""
        if self._is_finite(statistics["low"], statistics["high"]):
            self.estimator.merge(**statistics)  # type: ignore[attr-defined]

    def _is_finite(self, *arrays: np.ndarray) -> bool:
        self.seen = True
        self.is_finite &= all(bool(np.isfinite(array).all()) for array in arrays)
        return self.is_finite


class Observation:
    """A model whose quantizers observe: each returns its input, and updates its estimator; see `calibrating`."""

    def __init__(self, model: keras.Model, observed: Sequence[Observed]):
        self._model, self._observed = model, observed
        self._predict_step = model.predict_step
        self._collected: dict[int, list[Any]] = {}  # by index of the quantizer, in the order of the calls
        self._order: dict[int, None] = {}  # the same indices, of all batches

    def observer(self, index: int) -> Any:
        """Returns the observer of a quantizer."""
        one = self._observed[index]
        estimator = one.estimator
        if not isinstance(estimator, MergeableEstimator) or not _on_backend(estimator):
            return one.update

        def observe(tensor):
            if 0 not in tensor.shape:
                self._collected.setdefault(index, []).append(_statistics(type(estimator), float32(tensor)))
                self._order[index] = None
            return tensor

        return observe

    def step(self, *args: Any) -> Any:
        """Returns as `predict_step` of the model does, but with the statistics as the outputs."""
        self._collected.clear()
        result = self._predict_step(*args)
        outputs = result[0] if keras.backend.backend() == "jax" else result
        # Keras merges and sorts outputs by structure: names of quantizers would do as keys, but may be there twice.
        statistics = {
            str(index): found[0] if len(found) == 1 else tree.map_structure(lambda *x: ops.concatenate(x), *found)
            for index, found in self._collected.items()
        }
        statistics |= {f"{_OUTPUT}{index}": _is_finite(y) for index, y in enumerate(tree.flatten(outputs))}
        self._collected.clear()
        return (statistics, *result[1:]) if keras.backend.backend() == "jax" else statistics

    def run(self, x: Any) -> list[bool]:
        """Runs the model on a batch.

        Args:
            x: a batch, as `predict_on_batch` takes it.

        Returns:
            For each output of the model, whether it is finite.

        Raises:
            ValueError: a quantizer got NaN or infinity.
        """
        # TensorFlow notes that models are compiled often, but each calibration has a model of its own.
        with muted("tensorflow", logging.ERROR):
            statistics = self._statistics(x)
        for index in self._order:
            if str(index) in statistics:
                self._observed[index].merge(statistics[str(index)])
        called = [self._observed[index] for index in self._order]  # the first of these is where the trouble begins
        for one in (*called, *self._observed):
            if not one.is_finite:
                raise ValueError(
                    f"{one.path!r} got values that are NaN or infinite. Check the calibration data, and the weights of "
                    "the layers before this quantizer."
                )
        finite = {name: bool(np.all(y)) for name, y in statistics.items() if name.startswith(_OUTPUT)}
        return [finite[f"{_OUTPUT}{index}"] for index in range(len(finite))]

    def _statistics(self, x: Any) -> dict[str, Any]:
        try:
            return self._model.predict_on_batch(x)
        except Exception:
            if self._model.run_eagerly:
                raise
        # A quantizer in a loop that the backend traces apart cannot pass its statistics out of the loop. If something
        # else is wrong, it is wrong again.
        self._model.run_eagerly = True
        self._model.predict_function = None
        return self._model.predict_on_batch(x)


def _is_finite(output: Any) -> Any:
    """Whether an output has numbers only, as a tensor with an axis: Keras joins outputs along their first."""
    dtype = getattr(output, "dtype", None)
    if dtype is None or not keras.backend.is_float_dtype(keras.backend.standardize_dtype(dtype)):
        return ops.ones((1,), "bool")
    return ops.reshape(ops.all(ops.isfinite(output)), (1,))


def _statistics(kind: type[MergeableEstimator], x: Any) -> dict[str, Any]:
    """Returns the statistics of a tensor; on TensorFlow from a function that is traced once for all tensors of a rank.

    Else tracing a hundred histograms takes longer than computing them for some batches.
    """
    if keras.backend.backend() != "tensorflow" or len(x.shape) == 0:
        return kind.statistics(x)
    return _traced(kind, len(x.shape))(x)


@functools.cache
def _traced(kind: type[MergeableEstimator], rank: int) -> Any:
    import tensorflow

    signature = [tensorflow.TensorSpec([None] * rank, "float32")]
    return tensorflow.function(kind.statistics, input_signature=signature, autograph=False)


@contextlib.contextmanager
def calibrating(
    model: keras.Model, quantizers: Sequence[ActivationQuantizer], observed: Sequence[Observed]
) -> Iterator[Observation]:
    """Makes the quantizers of a model observe for the time of the context.

    An estimator that is no `MergeableEstimator`, or has an `update` of its own, needs values, so the model runs eagerly
    then.

    Args:
        model: the model.
        quantizers: all of its activation quantizers. They return their inputs for the time of the context.
        observed: those that observe.
    """
    observation = Observation(model, observed)
    before = {name: getattr(model, name) for name in (*_COMPILED, "run_eagerly")}
    own_step = vars(model).get("predict_step")
    observers = {one.quantizer: observation.observer(index) for index, one in enumerate(observed)}
    with quantized_once(model), observing({**dict.fromkeys(quantizers, unquantized), **observers}):
        try:
            model.predict_step = observation.step
            model.predict_function = None
            if not all(_on_backend(one.estimator) for one in observed):
                model.run_eagerly = True
            yield observation
        finally:
            if own_step is None:
                del model.predict_step
            else:
                model.predict_step = own_step
            for name, value in before.items():
                setattr(model, name, value)


def _on_backend(estimator: RangeEstimator) -> bool:
    """Whether `statistics` does all that an estimator does, so that `update` need not be called."""
    return isinstance(estimator, MergeableEstimator) and type(estimator).update is MergeableEstimator.update
