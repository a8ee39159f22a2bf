"""`distill`: a model that trains a quantized model to return what a float model returns."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops, tree

from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import LayerGraph, check_is_model
from tensorflow_quantization.model.inputs import BATCH_SIZE, input_batches
from tensorflow_quantization.model.keras_internals import functional_of, is_functional, nodes_of, sublayers
from tensorflow_quantization.quantizers import replicas
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.training import sample_weights
from tensorflow_quantization.wrappers import quantized_name

#: Batches in which `fit` measures the power of the signals before it trains.
_SIGNAL_BATCHES = 10
_OUTPUTS, _FEATURES = "outputs", "features"

Loss = str | Callable[[Any, Any], Any]


@suggests_arguments
def distill(
    student: keras.Model,
    teacher: keras.Model,
    *,
    loss: Loss | None = None,
    weight: float = 1.0,
    features: Sequence[str] | Mapping[str, str] = (),
    feature_loss: Loss | None = None,
    feature_weight: float = 1.0,
) -> keras.Model:
    """Returns a model that trains `student` to return what `teacher` returns; no labels are needed.

    Compile it and `fit` it, with inputs as for `student`. It returns the outputs of `student`, whose weights it trains;
    the teacher runs at inference. A loss and metrics of `compile` are for labels, and the loss is added. Export
    `student`, not the result; what the result saves, to a `ModelCheckpoint` for example, is the student.

    Examples:
        >>> quantized = calibrate(quantize_model(model), images, verbose=0)
        >>> distilled = distill(quantized, model, features=["conv"])
        >>> distilled.compile("adam")
        >>> history = distilled.fit(images, verbose=0)

        The Kullback-Leibler divergence of logits, at a temperature of 4 (arXiv:1503.02531):

        >>> def divergence(teacher, student):
        ...     teacher, student = (keras.ops.softmax(logits / 4.0) for logits in (teacher, student))
        ...     return 16.0 * keras.losses.kl_divergence(teacher, student)
        >>> distilled = distill(quantized, model, loss=divergence)

    Args:
        student: the quantized model, calibrated; trained in place.
        teacher: the float model, with outputs of the same shapes; unchanged, since a copy of it is used.
        loss: of teacher and student outputs: a name, a function or a `keras.losses.Loss`, called as
            loss(teacher output, student output) for each output. `None` (default): noise over signal,
            mean((student - teacher)**2) / mean(teacher**2), which suits outputs of any kind and unit. The noise is the
            batch's, and the signal is the mean over the first batches of the data, which `fit` runs the teacher on
            before it trains, and all batches so far. On logits, the squared error distills better than the divergence
            of probabilities (arXiv:2105.08919). Sample weights multiply the values of a loss.
        weight: float, the factor of `loss`; default 1.
        features: the names of layers whose outputs are compared too: a list of names in the teacher, for layers that
            have the same name, or `quant_<name>`, in the student; or {name in the student: name in the teacher}. The
            layers stand in the models themselves and not in nested models. Default: none.
        feature_loss: as `loss`, for the features; `None` (default): noise over signal.
        feature_weight: float, the factor of the mean of the losses of all features; default 1.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        TypeError: `student` or `teacher` is no `keras.Model`.
        ValueError: the inputs or outputs of the two differ in number or shape, or a feature is not the output of one
            layer.
    """
    check_is_model(student)
    check_is_model(teacher)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of methods that a copy loses: only its outputs count
        copy = rewrite(LayerGraph.trace(teacher), lambda call, layer: [layer])
    copy.trainable = False
    pairs = dict(features) if isinstance(features, Mapping) else {_partner(student, f): f for f in features}
    _check_inputs(student, copy)
    _check_outputs(student, copy)
    return _Distilled(
        student,
        _with_features(student, list(pairs)),
        _with_features(copy, list(pairs.values())),
        (loss, weight),
        (feature_loss, feature_weight),
    )


class _Signal(keras.layers.Layer):
    """The mean power of a teacher's tensor over the batches so far: the unit in which its noise counts.

    Batches differ in their signal, and one can have none: in a unit of its own, its noise would count without limit.
    """

    def __init__(self):
        super().__init__(dtype="float32")
        self.power = self.add_weight(name="power", initializer="zeros", trainable=False, autocast=False)
        self.batches = self.add_weight(name="batches", initializer="zeros", trainable=False, autocast=False)
        self.built = True

    def noise_over_signal(self, expected, got, weight):
        """Returns mean((got - expected)**2) over the mean power, this batch included; 0 if all were zero."""
        power, _ = self._with(expected)
        noise = sample_weights.weighted_mean(ops.square(got - expected), weight)
        return ops.where(power == 0, 0.0, noise / ops.where(power == 0, 1.0, power))

    def update(self, expected):
        """Counts a batch."""
        power, batches = self._with(expected)
        self.power.assign(power)
        self.batches.assign(batches)

    def _with(self, expected):
        batches = self.batches + 1.0
        return self.power + (replicas.mean_magnitude(ops.square(expected)) - self.power) / batches, batches


class _Distilled(keras.Model):
    """The result of `distill`.

    Attributes:
        student: the quantized model.
    """

    def __init__(self, student, with_features, teacher, output_loss, feature_loss):
        # The student casts its inputs itself.
        super().__init__(name=f"distilled_{student.name}", dtype=_policy(student), autocast=False)
        self.student = student
        self._both = (with_features, teacher)
        self._weighted_losses = {_OUTPUTS: output_loss, _FEATURES: feature_loss}
        self._signals = {  # of the parts that noise over signal compares
            part: [_Signal() for _ in tree.flatten(teacher.output[part])]
            for part, (loss, _) in self._weighted_losses.items()
            if loss is None
        }
        self._measured = False
        if hasattr(student, "output_names"):  # losses and metrics may be given by these names
            self.output_names = list(student.output_names)
        self.built = True

    def call(self, inputs, training=None):
        student, _ = self._both
        got, expected = student(inputs, training=training), self._expected(inputs)
        weights = sample_weights.weights_of_outputs(got[_OUTPUTS], getattr(self, "output_names", ()))
        for part, (loss, weight) in self._weighted_losses.items():
            count = len(expected[part])
            signals = self._signals.get(part)
            losses = [_weighing(loss)] * count if signals is None else [s.noise_over_signal for s in signals]
            of_part = weights if part == _OUTPUTS else [sample_weights.of_samples(weights)] * count
            pairs = zip(expected[part], map(_float32, tree.flatten(got[part])), strict=True)
            found = [f(e, g, w) for f, (e, g), w in zip(losses, pairs, of_part, strict=True)]
            if found:
                self.add_loss(weight / count * sum(found))
        if training:
            self._update_signals(expected)
        return got[_OUTPUTS]

    def _expected(self, inputs):
        """Returns the teacher's tensors of each part."""
        _, teacher = self._both
        expected = teacher(inputs, training=False)
        return {part: [ops.stop_gradient(_float32(t)) for t in tree.flatten(ts)] for part, ts in expected.items()}

    def _update_signals(self, expected):
        for part, signals in self._signals.items():
            for signal, tensor in zip(signals, expected[part], strict=True):
                signal.update(tensor)

    def fit(self, x=None, *args, **kwargs):
        # A generator would lose the batches.
        if self._signals and not self._measured and not isinstance(x, Iterator):
            graph = LayerGraph.trace(self.student)
            for arrays in itertools.islice(input_batches(graph, x, BATCH_SIZE), _SIGNAL_BATCHES):
                self._update_signals(self._expected(tree.pack_sequence_as(graph.input_structure, arrays)))
            self._measured = True
        return super().fit(x, *args, **kwargs)

    # A step of `fit` and `evaluate` has the sample weights. Its last argument is the batch: with JAX, a state is first.

    def train_step(self, *args):
        with sample_weights.weighing(args[-1]):
            return super().train_step(*args)

    def test_step(self, *args):
        with sample_weights.weighing(args[-1]):
            return super().test_step(*args)

    # What callbacks save is the student: without the teacher, which a later `distill` gets again. Weights come with the
    # state of the optimizer, from which a training resumes.

    def save(self, filepath, overwrite=True, **kwargs):
        self.student.save(filepath, overwrite=overwrite, **kwargs)

    def save_weights(self, filepath, overwrite=True, **kwargs):
        self._student_in_training().save_weights(filepath, overwrite=overwrite, **kwargs)

    def load_weights(self, filepath, **kwargs):
        self._student_in_training().load_weights(filepath, **kwargs)

    def _student_in_training(self):
        view = view_of(self.student)
        if self.compiled:
            view.compile(self.optimizer)
        return view


def _weighing(loss: Loss) -> Callable[[Any, Any, Any], Any]:
    """Returns a scalar loss of the teacher's tensor, the student's and sample weights."""
    get = keras.losses.get(loss)
    if isinstance(get, keras.losses.Loss):  # it weighs samples itself
        return lambda expected, got, weight: ops.mean(get(expected, got, sample_weight=weight))
    return lambda expected, got, weight: sample_weights.weighted_mean(get(expected, got), weight)


def _float32(x: Any) -> Any:
    return ops.cast(x, "float32")


def _policy(model: keras.Model) -> Any:
    """Returns the policy of a model that trains `model`: Keras scales the loss if it is "mixed_float16".

    A model that was loaded has the policy of the process, and its layers have their own.
    """
    mixed = (layer.dtype_policy for layer in sublayers(model) if layer.dtype_policy.name == "mixed_float16")
    return next(mixed, model.dtype_policy)


def _functional(model: keras.Model) -> keras.Model:
    functional = functional_of(model) if isinstance(model, keras.Sequential) else model
    if functional is None or not is_functional(functional):
        raise ValueError(
            f"Model {model.name!r} is neither functional nor Sequential, so it has no tensors to distill. Pass the "
            "result of quantize_model."
        )
    return functional


def view_of(model: keras.Model) -> keras.Model:
    """Returns a model of the same layers, to be compiled without compiling `model`."""
    functional = _functional(model)
    view = keras.Model(functional.input, functional.output, name=model.name)
    view.dtype_policy = _policy(model)
    if hasattr(model, "output_names"):  # losses and metrics may be given by these names
        view.output_names = list(model.output_names)
    return view


def _with_features(model: keras.Model, names: list[str]) -> keras.Model:
    """Returns a model of the same layers that returns its outputs and features."""
    functional = _functional(model)
    outputs = {_OUTPUTS: functional.output, _FEATURES: [_feature(model, name) for name in names]}
    return keras.Model(functional.input, outputs)


def _feature(model: keras.Model, name: str) -> Any:
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        raise ValueError(f"Model {model.name!r} has no layer {name!r}.{did_you_mean(name, list(layers))}")
    nodes = nodes_of(layers[name])
    if len(nodes) != 1 or len(nodes[0].output_tensors) != 1:
        raise ValueError(
            f"Layer {name!r} of model {model.name!r} has no single output: it is called several times, or returns "
            "several tensors. Name a layer with one output as a feature."
        )
    return nodes[0].output_tensors[0]


def _partner(student: keras.Model, name: str) -> str:
    """Returns the name, in the student, of a layer of the teacher."""
    names = {layer.name for layer in student.layers}
    return quantized_name(name) if quantized_name(name) in names else name


def _check_inputs(student: keras.Model, teacher: keras.Model) -> None:
    got, wanted = ([tuple(t.shape) for t in tree.flatten(_functional(m).input)] for m in (student, teacher))
    if len(got) != len(wanted) or not all(map(_fits, got, wanted)):
        raise ValueError(
            f"The student has inputs of shapes {got}, and the teacher {wanted}. Pass as teacher the model that was "
            "quantized, or one with inputs of the same shapes."
        )


def _fits(shape: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    """Whether a tensor can have both shapes."""
    sizes = zip(shape, other, strict=False)
    return len(shape) == len(other) and all(None in pair or pair[0] == pair[1] for pair in sizes)


def _check_outputs(student: keras.Model, teacher: keras.Model) -> None:
    got, wanted = ([tuple(t.shape) for t in tree.flatten(_functional(m).output)] for m in (student, teacher))
    if got != wanted:
        raise ValueError(
            f"The outputs of the student have shapes {got}, and those of the teacher {wanted}. Pass as teacher the "
            "model that was quantized, or one with outputs of the same shapes."
        )
