"""`calibrate`: sets the activation ranges of a quantized model from a calibration set."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from tensorflow_quantization.calibration.auto import AllMethods, least_output_errors
from tensorflow_quantization.calibration.entropy import Entropy
from tensorflow_quantization.calibration.estimator import MergeableEstimator, RangeEstimator
from tensorflow_quantization.calibration.huge_values import warn_of_huge_values
from tensorflow_quantization.calibration.input_scale import warn_of_scale
from tensorflow_quantization.calibration.min_max import MinMax
from tensorflow_quantization.calibration.mse import MSE
from tensorflow_quantization.calibration.observation import Observed, calibrating
from tensorflow_quantization.calibration.percentile import Percentile
from tensorflow_quantization.model.finite import check_finite, output_names
from tensorflow_quantization.model.graph import LayerGraph, check_is_model
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.model.keras_internals import data_adapter, sublayers
from tensorflow_quantization.model.weights import mode_of_keras
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.quantizers.activation import are_learned
from tensorflow_quantization.quantizers.observing import observing, unquantized
from tensorflow_quantization.text.arguments import check_count, suggests_arguments
from tensorflow_quantization.text.messages import must_be_one_of, plain_errors
from tensorflow_quantization.wrappers import float_name

ESTIMATORS: dict[str, type[MergeableEstimator]] = {
    "minmax": MinMax,
    "percentile": Percentile,
    "mse": MSE,
    "entropy": Entropy,
}

#: The method that compares the ranges of all others.
AUTO = "auto"
METHODS = (*ESTIMATORS, AUTO)

#: Former name of a method to its name today.
_OLDER_NAMES = {"max": "minmax"}


@suggests_arguments
def calibrate(
    model: keras.Model,
    data: Any,
    *,
    method: str | type[RangeEstimator] = "mse",
    steps: int | None = None,
    batch_size: int | None = None,
    verbose: int = 1,
) -> keras.Model:
    """Sets the activation ranges of a quantized model from a calibration set, and freezes them.

    The model runs in inference mode with quantized weights and float activations, and each quantizer observes its
    tensor inside the compiled model; what cannot be compiled runs eagerly. Later training keeps the ranges; with
    `ranges="learned"` it continues from them. A hundred batches or fewer are enough. `save_calibration` writes the
    result. A warning names the first BatchNormalization whose moving statistics the data does not fit: images of 0 to
    255 in a network that was trained on 0 to 1. Another names a tensor with values so huge that all others become one
    integer, such as scores that a mask of -1e9 was added to.

    Examples:
        >>> quantized = quantize_model(model, target="onnxruntime")
        >>> quantized = calibrate(quantized, images, method="percentile", verbose=0)
        >>> all(quantizer.frozen for layer in describe(quantized) for quantizer in layer.quantizers if quantizer.range)
        True

    Args:
        model: the result of `quantize_model`; changed in place.
        data: the calibration set: arrays as `model.predict` takes them, or data that yields batches: a
            `tf.data.Dataset`, a `PyDataset`, a generator, a torch `DataLoader`, a list of batches. Shapes include the
            batch axis. Of (x, y) pairs only x is used.
        method: the range of each tensor:

            - "mse" (default): the least mean squared quantization error.
            - "minmax": from the least value to the greatest. "max" is a former name.
            - "percentile": without the 0.01 % of the values furthest from zero; with a zero point, 0.01 % at each end.
            - "entropy": the least Kullback-Leibler divergence, as in TensorRT; not for FP8.
            - "auto": of the ranges of all methods, the range with the least squared error of the outputs of the layers
              that read the tensor. It runs over the data twice, and takes several times as long.
            - a function without arguments that returns a `RangeEstimator`: `lambda: Percentile(99.9)`.
        steps: int, the greatest number of batches; `None` (default) is all. A generator that never ends needs it.
        batch_size: int, samples in a batch of arrays; `None` (default) is 32, or the batch size of the model if it has
            a fixed one.
        verbose: 1 (default) shows a progress bar, 0 nothing.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is no `keras.Model`, `data` is `None`, `method` makes no `RangeEstimator`, or `steps` or
            `batch_size` is no int; or the data is a generator, which "auto" cannot read twice.
        ValueError: the model has no quantizers, `method` is unknown or not for FP8, `steps` or `batch_size` is below 1,
            the data is empty or does not have the shapes of the model's inputs, a tensor or an output is NaN or
            infinite, or no data reached a quantizer; or, for "auto", the model has a `predict_step` of its own, or the
            data had other batches when it was read again. All ranges are unchanged then.
    """
    if isinstance(data, keras.Model):
        raise TypeError("data is a model. Pass the model first: calibrate(model, data).")
    quantizers = activation_quantizers(model)
    make_estimator = _estimator(method)
    _check_suits(method, quantizers)
    if data is None:
        raise TypeError("data is None. Pass a calibration set, such as an array of inputs.")
    check_count("steps", steps)
    check_count("batch_size", batch_size)
    if method == AUTO:
        _check_reads_twice(model, data)
    paths = layer_paths(model)
    observed = [
        Observed(quantizer, paths[id(quantizer)], _made_by(make_estimator))
        for quantizer in quantizers
        if quantizer.has_own_range
    ]
    batches = _Batches(model, data, steps, batch_size, verbose)
    with calibrating(model, quantizers, observed) as observation:
        for x in batches:
            with plain_errors():
                finite = observation.run(x)
            if not all(finite):  # a predict_step of the model's own may return anything
                names = [float_name(name) for name in output_names(LayerGraph.trace(model))]
                check_finite(
                    model.name, names if len(names) == len(finite) else list(map(str, range(len(finite)))), finite
                )
            if batches.done == 0:
                with observing(dict.fromkeys(quantizers, unquantized)):
                    warn_of_scale(model, x)
    if batches.done == 0:
        raise ValueError("The calibration data is empty: it has no batch.")
    _check_seen(observed)
    # All ranges are computed before the first is set: an estimator that raises leaves the model unchanged.
    if method == AUTO:
        again = _Batches(model, data, steps, batch_size, verbose)
        with plain_errors():
            ranges = least_output_errors(model, quantizers, observed, again)
        if again.done != batches.done:
            raise ValueError(
                f"data had {batches.done} batches at first, and {again.done} when it was read again, which "
                "method='auto' does. Pass arrays, or a list of the batches."
            )
    else:
        ranges = [one.estimator.range(one.quantizer.scheme) for one in observed]
    warn_of_huge_values(observed)
    for one, (low, high) in zip(observed, ranges, strict=True):
        one.quantizer.set_range(low, high)
        # The choice of "auto" depends on more than the statistics: they would not merge to the choice for all data.
        one.quantizer.estimator = None if method == AUTO else one.estimator
    for quantizer in quantizers:
        quantizer.frozen = not are_learned(quantizer.ranges)
    model.train_function = None  # one that was compiled before moves the ranges
    return model


def _check_suits(method: Any, quantizers: list[ActivationQuantizer]) -> None:
    """Raises: ValueError: the method is for integers only, and a quantizer is in FP8."""
    if method == "entropy" and any(quantizer.scheme.floating for quantizer in quantizers):
        raise ValueError(
            "method='entropy' compares levels of equal distance, and FP8 has others. Pass method='minmax' or 'mse'."
        )


def activation_quantizers(model: keras.Model) -> list[ActivationQuantizer]:
    """Returns the activation quantizers of a model; none if only weights are quantized, as in recurrent layers.

    Raises:
        TypeError: `model` is no `keras.Model`.
        ValueError: nothing is quantized.
    """
    check_is_model(model)
    mode = mode_of_keras(model)
    if mode is not None:
        raise ValueError(
            f"Keras' own quantize({mode!r}) changed the weights of model {model.name!r}. Pass the result of "
            "quantize_model without that call."
        )
    found = sublayers(model)
    quantizers = [layer for layer in found if isinstance(layer, ActivationQuantizer)]
    if not quantizers and not any(isinstance(layer, WeightQuantizer) for layer in found):
        raise ValueError(f"Model {model.name!r} has no quantizers. Pass the result of quantize_model(model).")
    return quantizers


def check_calibrated(model: keras.Model) -> None:
    """Raises an error unless a model is quantized, and each of its activation quantizers has a range from data.

    Raises:
        TypeError: `model` is no `keras.Model`.
        ValueError: it has no quantizers, or a range is not set.
    """
    check_is_model(model)
    found = sublayers(model)
    if not any(isinstance(layer, ActivationQuantizer | WeightQuantizer) for layer in found):
        raise ValueError(f"Model {model.name!r} has no quantizers. Pass the result of quantize_model(model).")
    paths = layer_paths(model)
    for layer in found:
        if isinstance(layer, ActivationQuantizer) and not layer.seen:
            raise ValueError(
                f"The activation range of {paths[id(layer)]!r} is not set yet. Call calibrate(quantized, data) first."
            )


def layer_paths(model: keras.Model) -> dict[int, str]:
    """Returns the path of each layer in a model, by id. Keras knows no path of a layer that is built from the start."""
    paths: dict[int, str] = {}

    def walk(layer: Any, prefix: str) -> None:
        for inner in sublayers(layer, recursive=False):
            if id(inner) not in paths:
                paths[id(inner)] = f"{prefix}{inner.name}"
                walk(inner, f"{prefix}{inner.name}/")

    walk(model, "")
    return paths


def _made_by(make_estimator: Any) -> RangeEstimator:
    estimator = make_estimator()
    if not isinstance(estimator, RangeEstimator):
        raise TypeError(
            f"method must be a name, or a function without arguments that returns a RangeEstimator; it returned "
            f"{estimator!r}. Pass for example `lambda: Percentile(99.9)`."
        )
    return estimator


def _estimator(method):
    if isinstance(method, RangeEstimator):
        raise TypeError(
            f"method is one {type(method).__name__}, and each quantizer needs its own. Pass the class, or a function "
            "that makes one: `lambda: Percentile(99.9)`."
        )
    if isinstance(method, type) and inspect.isabstract(method):
        raise TypeError(f"method is the abstract class {method.__name__}. Pass a subclass that estimates a range.")
    if callable(method):
        return method
    if not isinstance(method, str):
        raise TypeError(must_be_one_of("method", METHODS, method, "a function that returns a RangeEstimator"))
    if method == AUTO:
        return AllMethods
    name = _OLDER_NAMES.get(method, method)
    if name not in ESTIMATORS:
        raise ValueError(must_be_one_of("method", METHODS, method))
    return ESTIMATORS[name]


def _check_reads_twice(model: keras.Model, data: Any) -> None:
    if isinstance(data, Iterator):
        raise TypeError(
            f"method='auto' reads data twice, and a {type(data).__name__} can be read once. Pass arrays, a list of the "
            "batches, or an object that can be iterated over again."
        )
    if _has_own_step(model):
        raise ValueError(
            f"method='auto' computes layer by layer, and {type(model).__name__} has a predict_step of its own, which "
            "alone knows what the layers get. Use another method, such as 'mse'."
        )


def _has_own_step(model: keras.Model) -> bool:
    return type(model).predict_step is not keras.Model.predict_step


class _Batches:
    """The x of each batch, with a progress bar; `done` counts those that are finished."""

    def __init__(self, model, data, steps, batch_size, verbose):
        total, self._batches = _batches(model, data, batch_size)
        self._total = total if steps is None else steps if total is None else min(steps, total)
        self._bar = keras.utils.Progbar(self._total, verbose=verbose, unit_name="batch")
        self.done = 0

    def __iter__(self) -> Iterator[Any]:
        for x in self._batches:
            yield x
            self.done += 1
            self._bar.update(self.done, finalize=self.done == self._total)
            if self.done == self._total:
                return
        if self.done and self._total is None:
            self._bar.update(self.done, finalize=True)


def _batches(model, data, batch_size) -> tuple[int | None, Iterator[Any]]:
    """The number of batches, `None` if it is unknown, and the x of each."""
    if _has_own_step(model):  # only this method knows what it takes
        adapter = data_adapter(data, batch_size)
        pairs = map(keras.utils.unpack_x_y_sample_weight, adapter.get_numpy_iterator())
        return adapter.num_batches, (x for x, _, _ in pairs)
    graph = LayerGraph.trace(model)
    batches = input_batches(graph, data, batch_size or BATCH_SIZE, "The calibration data")
    return batches.count, (tree.pack_sequence_as(graph.input_structure, arrays) for arrays in batches)


def _check_seen(observed: list[Observed]) -> None:
    unseen = [one.path for one in observed if not one.seen]
    if unseen:
        raise ValueError(f"No data reached {', '.join(unseen)}: the model's predict_step does not call these layers.")
