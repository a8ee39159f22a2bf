"""`fine_tune`: quantization-aware training in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.calibration.calibrate import check_calibrated
from tensorflow_quantization.model.clone import copied_compile_arguments
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import BATCH_SIZE, first_batches, model_inputs
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise
from tensorflow_quantization.quantizers import ActivationQuantizer, WeightQuantizer
from tensorflow_quantization.text.arguments import check_count, suggests_arguments
from tensorflow_quantization.text.warn import converting, warn_user
from tensorflow_quantization.training.distillation import distill, view_of
from tensorflow_quantization.training.frozen_ranges import FreezeRanges
from tensorflow_quantization.training.frozen_statistics import FreezeBatchNormalization
from tensorflow_quantization.training.reestimation import reestimate_batch_normalization
from tensorflow_quantization.training.student import normalizations

#: Epochs and learning rate at 8 bits, and below: a hundredth to a tenth of usual first rates (arXiv:2004.09602), and
#: ten times as much below 8 bits (LSQ, arXiv:1902.08153, section 3).
_EPOCHS, _LEARNING_RATE = (1, 10), (1e-4, 1e-3)
#: After `calibrate` with weights of fewer bits, statistics of BatchNormalization that follow the training leave less
#: noise; with more bits, the float model's do (docs/benchmarks/training.md).
_STATISTICS_BELOW = 4
#: From this share of the epochs on, ranges and statistics are frozen.
_FROZEN_FROM = 0.75
#: Noise that grows by this factor, 3 dB, is worth a warning.
_WORSE = 2.0
#: Batches from which the statistics of BatchNormalization are estimated at the end.
_STATISTICS_BATCHES = 50
#: Callbacks that assign to the learning rate, which a schedule does not allow.
_SETS_RATE = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


@suggests_arguments
def fine_tune(
    quantized: keras.Model,
    data: Any,
    y: Any = None,
    *,
    teacher: keras.Model | None = None,
    loss: Any = None,
    features: Sequence[str] | Mapping[str, str] = (),
    metrics: Any = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    learning_rate: float | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    reestimate: bool | None = None,
    validation_data: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> keras.callbacks.History:
    """Trains a quantized, calibrated model, so that its weights adapt to rounding.

    The model learns from the outputs of a float `teacher`, from labels with a `loss`, or from both. The learning rate
    falls to zero along a cosine. The ranges that `calibrate` set are the start and stay; learned ones go on from there.
    Ranges that still follow the batches are frozen for the last quarter of the epochs. The statistics of
    BatchNormalization stay as they are. With weights below 4 bits, which move far, they follow the batches,
    are frozen for the last quarter, too, and are estimated anew at the end, unless the data is a generator. If anything
    stops the training, an interrupt, an error, a loss or a weight that is not finite, the model is as before.

    If only the teacher is learned from, and the outputs for the first batch are further from the teacher's at the end,
    by 3 dB or more, a warning says so; the model stays trained. `weights = quantized.get_weights()` before the training
    and `quantized.set_weights(weights)` after it undo it. With a generator, the outputs are not measured.

    Examples:
        >>> quantized = quantize_model(model, weight_bits=4, weight_ranges="learned")
        >>> quantized = calibrate(quantized, images, verbose=0)
        >>> history = fine_tune(quantized, images, teacher=model, epochs=2, verbose=0)
        >>> len(history.history["loss"])
        2

    Args:
        quantized: the result of `quantize_model`, calibrated; trained in place. How it is compiled does not change, and
            neither does its optimizer. A `train_step` or `compute_loss` of its class is not called: `fit` does that.
            If layers compute in mixed_float16, the loss is scaled, as `compile` does for such models.
        data: inputs as `fit` takes them: arrays, a `tf.data.Dataset`, a `PyDataset`, a generator, a torch `DataLoader`.
            A tuple is (x, y) or (x, y, sample_weight) of arrays. Sample weights weigh the losses of labels and teacher.
        y: labels for arrays of inputs, if `data` is no tuple; default `None`.
        teacher: the float model; see `distill`. Default `None`.
        loss: of labels and outputs, as `compile` takes it; default `None`: without a teacher the loss, loss weights and
            metrics that `quantized` is compiled with, else no labels are used.
        features: layers that learn from the teacher, too; see `distill`. Default: none.
        metrics: as `compile` takes them, for labels; default `None`: the metrics of `quantized`, if its loss is used.
        epochs: int; default `None`: 1, or 10 if any weight or activation has fewer than 8 bits.
        batch_size: int, samples in a batch of arrays; default `None`, which is 32.
        steps_per_epoch: int, batches in an epoch; needed for data of unknown length. Default `None`: all.
        learning_rate: float, the first rate; default `None`: 1e-4, or 1e-3 below 8 bits.
        optimizer: a `keras.optimizers.Optimizer`, used as it is; default `None`: Adam, with the cosine. Its rate must
            not be a schedule if a callback sets it.
        reestimate: bool, whether the statistics of BatchNormalization follow the training; default `None`: only if any
            weights have fewer than 4 bits. `False` also suits a float model whose statistics are not of this data.
        validation_data: as `fit` takes it; default `None`.
        callbacks: further callbacks, `Dampen(1e-3)` for example; default none. A `ModelCheckpoint` saves the
            quantized network. With a `ReduceLROnPlateau` or `LearningRateScheduler`, the rate follows no cosine: the
            callback sets it.
        verbose: as `fit` takes it.

    Returns:
        The `keras.callbacks.History`, as `fit` returns it.

    Raises:
        TypeError: `quantized` or `teacher` is no `keras.Model`, `optimizer` is no optimizer, or a count is no int.
        ValueError: the model is not calibrated, the data does not fit its inputs, a count or rate is not above 0,
            there is nothing to learn from, labels are passed twice, the length of the data is unknown, both `optimizer`
            and `learning_rate` are passed, or the loss or a weight becomes NaN or infinite.
    """
    check_calibrated(quantized)
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("steps_per_epoch", steps_per_epoch)):
        check_count(name, value)
    _check_arguments(quantized, teacher, features, optimizer, learning_rate)
    x, y, sample_weight = _unpacked(data, y)
    losses = _label_losses(quantized, teacher, loss, metrics)
    _warn_of_own_methods(quantized)
    if _is_array(x):
        model_inputs(LayerGraph.trace(quantized), x, "data")
        if losses["loss"] is not None and y is None:
            raise ValueError("A loss needs labels. Pass them as y, or as the second of a tuple (x, y).")
    low = _bits_of(quantized, ActivationQuantizer, WeightQuantizer) < 8
    epochs = _EPOCHS[low] if epochs is None else epochs
    reestimate = _bits_of(quantized, WeightQuantizer) < _STATISTICS_BELOW if reestimate is None else reestimate
    # A generator has no first batch to look at again.
    watched = teacher is not None and losses["loss"] is None and not isinstance(x, Iterator)
    frozen_from = max(1, round(_FROZEN_FROM * epochs))
    schedule = [FreezeRanges(frozen_from), FreezeBatchNormalization(frozen_from if reestimate else 0)]
    callbacks = [*callbacks, *schedule, keras.callbacks.TerminateOnNaN()]
    with _replicas_of(quantized), _as_before_unless_finished(quantized, callbacks):
        if optimizer is None:
            rate = _LEARNING_RATE[low] if learning_rate is None else learning_rate
            if not any(isinstance(callback, _SETS_RATE) for callback in callbacks):
                steps = steps_per_epoch or _steps(x, batch_size)
                rate = keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
            optimizer = keras.optimizers.Adam(rate)
        model = view_of(quantized) if teacher is None else distill(quantized, teacher, features=features)
        warn_if_further = _warns_if_further(quantized, teacher, x, reestimate) if watched else None
        model.compile(optimizer, **losses)
        history = model.fit(
            x,
            y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation_data,
            callbacks=callbacks,
            shuffle=_is_array(x),  # Keras warns where a data set shuffles itself
            verbose=verbose,
        )
        _check_finite(quantized, history)
        if reestimate and not isinstance(x, Iterator):  # a generator has no more data
            reestimate_batch_normalization(quantized, x, steps=_STATISTICS_BATCHES, batch_size=batch_size or BATCH_SIZE)
    history.set_model(quantized)
    if warn_if_further is not None:
        warn_if_further()
    return history


def _warns_if_further(quantized: keras.Model, teacher: Any, x: Any, reestimate: bool) -> Callable[[], None]:
    """Returns a function that warns if the outputs for the first batch are further from the teacher's than now."""
    first = first_batches(LayerGraph.trace(quantized), x, 1, "data")[0]
    expected = [float32_array(y) for y in tree.flatten(teacher(first, training=False))]

    def noise() -> float:
        ratio = SignalToNoise()
        outputs = tree.flatten(quantized(first, training=False))
        for index, (exact, got) in enumerate(zip(expected, outputs, strict=True)):
            ratio.update(exact, float32_array(got), index)
        return ratio.noise

    before, moved = noise(), reestimate and bool(normalizations(quantized))

    def warn() -> None:
        after = noise()
        if after > _WORSE * before:
            keep = ", or with reestimate=False, which keeps the statistics of BatchNormalization" if moved else ""
            was, now = (f"{-10 * math.log10(ratio):.1f} dB" if ratio > 0 else "exact" for ratio in (before, after))
            warn_user(
                f"The training moved the outputs of model {quantized.name!r} away from the teacher's: for the first "
                f"batch, the signal-to-noise ratio was {was} before, and is {now} now. Quantize the float model again, "
                f"and train it with more data or a smaller learning_rate{keep}. To undo a training, call "
                "weights = quantized.get_weights() before it, and quantized.set_weights(weights) after it."
            )

    return warn


def _unpacked(data: Any, y: Any) -> tuple[Any, Any, Any]:
    """Returns inputs, labels and sample weights."""
    if not isinstance(data, tuple):
        return data, y, None
    if y is not None:
        raise ValueError(
            "data is a tuple, which is (x, y) or (x, y, sample_weight), and y is passed, too. Pass labels once: "
            "fine_tune(quantized, x, y), where x is a list or dict for several inputs, or fine_tune(quantized, (x, y))."
        )
    return keras.utils.unpack_x_y_sample_weight(data)


def _label_losses(quantized: keras.Model, teacher: keras.Model | None, loss: Any, metrics: Any) -> dict[str, Any]:
    """Returns the arguments of `compile` that are about labels: those passed, or those `quantized` is compiled with."""
    passed = {"loss": loss, "metrics": metrics}
    if loss is not None or teacher is not None:
        return passed
    compiled = copied_compile_arguments(quantized)
    if compiled.get("loss") is None:
        raise ValueError(
            f"Model {quantized.name!r} has nothing to learn from. Pass teacher=float_model, or labels and a loss: "
            'fine_tune(quantized, x, y, loss="mse").'
        )
    of_labels = {key: compiled[key] for key in ("loss", "loss_weights", "metrics", "weighted_metrics")}
    return of_labels if metrics is None else {**of_labels, "metrics": metrics, "weighted_metrics": None}


def _warn_of_own_methods(quantized: keras.Model) -> None:
    methods = ("train_step", "compute_loss")
    own = [name for name in methods if getattr(type(quantized), name) is not getattr(keras.Model, name)]
    if own:
        warn_user(
            f"fine_tune does not call the {' and '.join(own)} of {type(quantized).__name__} {quantized.name!r}: it "
            "trains the layers with the loss that it got. To train with them, call fit, with the callbacks of "
            "tensorflow_quantization.training."
        )


def _bits_of(model: keras.Model, *quantizers: type[ActivationQuantizer | WeightQuantizer]) -> int:
    """Returns the fewest bits of quantizers of these classes; 8 without any."""
    return min((layer.scheme.bits for layer in sublayers(model) if isinstance(layer, quantizers)), default=8)


def _check_arguments(
    quantized: keras.Model, teacher: Any, features: Any, optimizer: Any, learning_rate: float | None
) -> None:
    if teacher is quantized:
        raise ValueError("teacher is the quantized model itself. Pass the float model.")
    if isinstance(features, str):
        raise TypeError(f"features must be a list of names, got {features!r}. Pass [{features!r}].")
    if features and teacher is None:
        raise ValueError("features are those of a teacher. Pass teacher=float_model, too.")
    if optimizer is not None and not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(f"optimizer must be a keras.optimizers.Optimizer, got {optimizer!r}.")
    if learning_rate is not None:
        if optimizer is not None:
            raise ValueError("Pass optimizer or learning_rate, not both: an optimizer has a rate of its own.")
        if not (math.isfinite(learning_rate) and learning_rate > 0):
            raise ValueError(f"learning_rate must be above 0, got {learning_rate!r}.")


def _is_array(x: Any) -> bool:
    arrays = tree.flatten(x)
    return bool(arrays) and all(hasattr(array, "shape") for array in arrays)


def _steps(x: Any, batch_size: int | None) -> int:
    """Returns the number of batches in an epoch."""
    if _is_array(x):
        return -(-len(tree.flatten(x)[0]) // (batch_size or BATCH_SIZE))
    try:
        return len(x)
    except TypeError:
        raise ValueError(
            "The number of batches in the data is unknown, and the learning rate depends on it. Pass steps_per_epoch, "
            "or an optimizer with a rate of your own."
        ) from None


def _replicas_of(model: keras.Model) -> AbstractContextManager:
    """Returns the context that an optimizer and a view of the model have to be made in.

    TensorFlow's `fit` trains the replicas of the strategy that the model was made under, whatever is current.
    """
    strategy = getattr(model, "distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


@contextmanager
def _as_before_unless_finished(model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> Iterator[None]:
    """Restores the model if the context is left by an exception, an interrupt for example."""
    with converting():
        values = [(v, np.array(keras.ops.convert_to_numpy(v)), v.regularizer) for v in model.variables]
    quantizers = [(q, q.frozen) for q in sublayers(model) if isinstance(q, ActivationQuantizer)]
    try:
        yield
    except BaseException:
        for callback in callbacks:
            if isinstance(callback, FreezeBatchNormalization):
                callback.release()
        for variable, value, regularizer in values:
            variable.assign(value)
            variable.regularizer = regularizer
        for quantizer, frozen in quantizers:
            quantizer.frozen = frozen
        raise
    finally:
        model.train_function = None  # one that was compiled before moves ranges that are frozen now


def _check_finite(model: keras.Model, history: keras.callbacks.History) -> None:
    losses = history.history.get("loss", [])
    if np.isfinite(losses).all():
        broken = next((v.path for v in model.weights if not np.isfinite(float32_array(v)).all()), None)
        if broken is None:
            return
        raise ValueError(
            f"Weight {broken!r} of model {model.name!r} became NaN or infinite. Check the data, or pass a "
            "smaller learning_rate. The model is as before."
        )
    epoch = int(np.argmin(np.isfinite(losses)))
    raise ValueError(
        f"The loss of model {model.name!r} is NaN or infinite in epoch {epoch + 1}. Pass a smaller learning_rate, or "
        "check the data. The model is as before."
    )
