"""`distill`: a model that trains a quantized model to return what a float model returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops, tree

from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import LayerGraph, check_is_model
from tensorflow_quantization.model.keras_internals import functional_of, is_functional, nodes_of
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.wrappers import quantized_name

#: Keeps the ratio finite for outputs that are all zero.
_LEAST = 1e-12
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
            sum((student - teacher)**2) / sum(teacher**2), which suits outputs of any kind and unit. On logits, the
            squared error distills better than the divergence of probabilities (arXiv:2105.08919).
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
        (_loss(loss), weight),
        (_loss(feature_loss), feature_weight),
    )


def noise_over_signal(expected: Any, got: Any) -> Any:
    """Returns sum((got - expected)**2) / sum(expected**2), a scalar."""
    noise, signal = ops.sum(ops.square(got - expected)), ops.sum(ops.square(expected))
    return noise / ops.maximum(signal, _LEAST)


class _Distilled(keras.Model):
    """The result of `distill`.

    Attributes:
        student: the quantized model.
    """

    def __init__(self, student, with_features, teacher, output_loss, feature_loss):
        super().__init__(name=f"distilled_{student.name}")
        self.student = student
        self._both = (with_features, teacher)
        self._weighted_losses = {_OUTPUTS: output_loss, _FEATURES: feature_loss}
        if hasattr(student, "output_names"):  # losses and metrics may be given by these names
            self.output_names = list(student.output_names)
        self.built = True

    def call(self, inputs, training=None):
        student, teacher = self._both
        got = student(inputs, training=training)
        expected = tree.map_structure(ops.stop_gradient, teacher(inputs, training=False))
        for part, (loss, weight) in self._weighted_losses.items():
            pairs = zip(tree.flatten(expected[part]), tree.flatten(got[part]), strict=True)
            losses = [ops.mean(loss(ops.cast(e, "float32"), ops.cast(g, "float32"))) for e, g in pairs]
            if losses:
                self.add_loss(weight / len(losses) * sum(losses))
        return got[_OUTPUTS]

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


def _loss(loss: Loss | None) -> Callable[[Any, Any], Any]:
    return noise_over_signal if loss is None else keras.losses.get(loss)


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
