"""`Finding`: what is wrong with one layer, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tensorflow_quantization.comparison.remedies import AS_IS, BIAS, BITS, CHANNELS, INCLUDES, RANGE, WEIGHTS
from tensorflow_quantization.comparison.statistics import Difference, Range, Usage
from tensorflow_quantization.model.activations import activation_of
from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.op_traits import Trait, traits
from tensorflow_quantization.noise.output_noise import producers
from tensorflow_quantization.noise.parts import FloatTwin, Part
from tensorflow_quantization.noise.signal_to_noise import decibels
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.text.messages import shortened
from tensorflow_quantization.wrappers import float_path, inner_layer, weight_quantizers_in

#: A remedy is worth a word if it at least halves the power of an error: 3 dB.
_WORTH = 2.0


class Kind(StrEnum):
    """What is wrong."""

    #: The data has another range than the calibration set: preprocessing differs.
    INPUT = "input"
    #: A quantizer never saw data.
    UNSEEN = "unseen"
    #: A range clips values.
    CLIPPED = "clipped"
    #: A range is wider than the values.
    WIDE = "wide"
    #: Channels with very different ranges share a scale.
    SCALED_CHANNELS = "scaled_channels"
    #: Too few bits.
    BITS = "bits"
    #: Weights are not those of the float model.
    WEIGHTS = "weights"
    #: A channel always has the same value.
    DEAD_CHANNEL = "dead_channel"
    #: The error is a constant shift of channels.
    BIAS = "bias"
    #: The file computes something else than Keras.
    RUNTIME = "runtime"


@dataclass(frozen=True)
class Finding:
    """What is wrong with one layer.

    Examples:
        >>> spec = QuantizationSpec()
        >>> spec.add("conv", weight_bits=2)
        >>> coarse = quantize_model(model, target="onnxruntime", quantization_spec=spec)
        >>> finding = compare(model, calibrate(coarse, images, verbose=0), images).worst[0]
        >>> finding.layer, finding.kind.value
        ('conv', 'bits')
        >>> finding.remedy
        "spec.add('conv', weight_bits=8), with a QuantizationSpec for quantize_model."

    Attributes:
        layer: the path of the guilty layer in the float model. If the values of a tensor are the problem, it is the
            layer that computes them, or the name of a model input.
        kind: a `Kind`, such as "scaled_channels".
        what: what errs: "weights", or the quantizer of a tensor: "input of 'conv2'".
        channels: the channels concerned, a tuple of int; empty if it concerns all.
        effect: the signal-to-noise ratio in dB of the network's output if only this errs; low is bad.
        gain: by how many dB the error of the network's output shrinks if this is mended. The effects of the remedy and
            of all parts are measured one at a time; their powers are added.
        problem: a sentence.
        remedy: a sentence: the function or the entry of a spec that mends it.
    """

    layer: str
    kind: Kind
    what: str
    channels: tuple[int, ...]
    effect: float
    gain: float
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.layer} [{self.kind.value}]: {self.problem} {self.remedy}"


@dataclass(frozen=True)
class Evidence:
    """What is known of a part.

    Attributes:
        part: the part.
        noise: by the name of a remedy, or `AS_IS`, the noise at the network's output, see `OutputNoise`.
        difference: how the operation's output differs from the float model's for float inputs.
        inputs: the ranges of the channels that the operation reads in the float model.
        usage: what an activation quantizer gets; `None` for weights.
    """

    part: Part
    noise: dict[str, float]
    difference: Difference
    inputs: Range
    usage: Usage | None


def finding(evidence: Evidence, twin: FloatTwin) -> tuple[Finding, float] | None:
    """Returns what is wrong with a part, with its best remedy, and the noise that it saves; `None` if none halves it.

    `ranked` sets the gain.
    """
    noise = evidence.noise
    gains = {}
    for name in noise:
        before = min([noise[AS_IS], *(noise[other] for other in INCLUDES.get(name, ()) if other in noise)])
        gains[name] = before / noise[name] if noise[name] > 0 else np.inf if before > 0 else 1.0
    best = max(gains, key=lambda name: gains[name])
    if not gains[best] >= _WORTH:
        return None
    describe = {
        RANGE: _range,
        BITS: _bits,
        CHANNELS: _scaled_channels,
        WEIGHTS: _weights,
        BIAS: _bias,
    }[best]
    layer, kind, channels, problem, remedy = describe(evidence, twin)
    effect = float(decibels(1.0, noise[AS_IS]))
    found = Finding(layer, kind, _what(evidence.part), channels, effect, 0.0, problem, remedy)
    return found, noise[AS_IS] - noise[best]


def ranked(found: list[tuple[Finding, float]], total: float) -> list[Finding]:
    """Returns findings with their gains, the costliest first; those of one layer and kind are one.

    A model input with another range than calibrated comes before all others: whatever follows is computed from it.

    Args:
        found: pairs of a finding, and the noise that its remedy saves.
        total: the noise of all parts, each alone.
    """
    groups: dict[tuple[str, Kind], list[tuple[Finding, float]]] = defaultdict(list)
    for each, saved in sorted(found, key=lambda pair: (pair[0].kind is not Kind.INPUT, pair[0].effect)):
        groups[each.layer, each.kind].append((each, saved))
    return [
        dataclasses.replace(
            group[0][0], gain=float(decibels(total, max(total - sum(saved for _, saved in group), 0.0)))
        )
        for group in groups.values()
    ]


def dead_channels(call: Call, difference: Difference) -> Finding | None:
    """Returns the channels that are constant in the float model, too: nothing is lost, but they cost time."""
    dead = _indices(difference.exact.constant)
    if not dead or len(dead) == difference.exact.low.size:
        return None
    problem = f"{_channels(dead)} always the same value, in the float model, too."
    remedy = "No accuracy is lost; pruning these channels saves time."
    return Finding(written_by(call.outputs[0]), Kind.DEAD_CHANNEL, "output", dead, np.inf, 0.0, problem, remedy)


def written_by(tensor: Tensor) -> str:
    """Returns the path, in the float model, of the layer that computes the values of a tensor, or a model input's name.

    Activations, normalizations, pooling and calls that move data are passed over.
    """
    source = producers(tensor, _passes_values)
    return source.name if source.producer is None else float_path(source.producer.path)


def _passes_values(call: Call) -> bool:
    if isinstance(call.operation, ActivationQuantizer) or activation_of(inner_layer(call.operation)) is not None:
        return True
    passing = Trait.IS_IDENTITY | Trait.NORMALIZES | Trait.MOVES_DATA | Trait.KEEPS_CHANNEL_FACTORS
    return bool(traits(_unwrapped(call)) & passing)


def _unwrapped(call: Call) -> Call:
    return Call(inner_layer(call.operation), call.path, call.args, call.kwargs, call.inputs, call.outputs)


def quantized_tensor(part: Part) -> Tensor:
    """Returns the tensor of the graph that an activation quantizer is about."""
    quantizer, call = part.quantizer, part.call
    inputs = getattr(call.operation, "input_quantizers", [])
    for index, own in enumerate(inputs):
        if own is quantizer:
            return call.operands[index]
    return call.inputs[0] if isinstance(call.operation, ActivationQuantizer) else call.outputs[0]


def _what(part: Part) -> str:
    if part.quantizer is None:
        return f"weights of {part.path!r}"
    if isinstance(part.call.operation, ActivationQuantizer):
        return f"output of {part.path!r}"
    return f"{part.quantizer.name.removesuffix('_quantizer').replace('_', ' ')} of {part.path!r}"


_Description = tuple[str, Kind, tuple[int, ...], str, str]


def _range(evidence: Evidence, twin: FloatTwin) -> _Description:
    usage, tensor = evidence.usage, quantized_tensor(evidence.part)
    assert usage is not None  # a range is of an activation quantizer
    quantizer, scheme = usage.quantizer, usage.quantizer.scheme
    scale, zero_point = (float(p) for p in quantizer.parameters())
    has = f"{scale * (scheme.qmin - zero_point):.4g} to {scale * (scheme.qmax - zero_point):.4g}"
    values = f"{usage.values.low.min():.4g} to {usage.values.high.max():.4g}"
    if not quantizer.seen:
        problem = f"The quantizer never saw data: its range is the initial one, {has}; the values are {values}."
        return evidence.part.path, Kind.UNSEEN, (), problem, "calibrate(quantized, data)."
    source = producers(tensor, lambda call: Trait.MULTIPLIES_BY_WEIGHTS not in traits(_unwrapped(call)))
    if source.producer is None:
        problem = f"The values are {values}, and the range from calibration is {has}."
        remedy = "Preprocess the data as the calibration set, or calibrate(quantized, data) with such data."
        return source.name, Kind.INPUT, (), problem, remedy
    if usage.clips:
        problem = f"The range {has} clips {usage.saturation:.1%} of the values, which are {values}."
        return evidence.part.path, Kind.CLIPPED, (), problem, "calibrate(quantized, data, method='minmax')."
    problem = f"The range {has} is wider than the values, {values}: {usage.dead_range:.0%} of the integers are unused."
    return evidence.part.path, Kind.WIDE, (), problem, "calibrate(quantized, data) with data as in use."


def _bits(evidence: Evidence, twin: FloatTwin) -> _Description:
    part = evidence.part
    if part.quantizer is None:
        bits = min(q.scheme.bits for q in weight_quantizers_in(part.call.operation))
        argument = "weight_bits"
    else:
        bits, argument = part.quantizer.scheme.bits, "activation_bits"
    remedy = f"spec.add({part.path!r}, {argument}=8), with a QuantizationSpec for quantize_model."
    if twin.trained:
        remedy += " The new model keeps the training with new.set_weights(quantized.get_weights())."
    return part.path, Kind.BITS, (), f"{bits} bits are too few here.", remedy


def _scaled_channels(evidence: Evidence, twin: FloatTwin) -> _Description:
    part = evidence.part
    tensor = part.call.inputs[0] if part.quantizer is None else quantized_tensor(part)
    layer = written_by(tensor)
    remedy = "tensorflow_quantization.accuracy.equalize(model, data) before quantize_model."
    if twin.trained:
        remedy += " The new model has to be trained again."
    magnitude = (evidence.inputs if evidence.usage is None else evidence.usage.values).magnitude
    largest = _apart(magnitude)
    others = np.delete(magnitude, largest)
    ratio = magnitude[list(largest)].min() / np.median(others[others > 0]) if others.any() else np.inf
    sharing = "the others, which share the scale"
    if part.quantizer is None:
        sharing = f"the others, and the weights of {part.path!r} that read them share scales"
    problem = f"{_channels(largest)} {ratio:.3g} times the range of {sharing}."
    if producers(tensor, _passes_values).producer is None:
        remedy = "Scale these features alike in the preprocessing: no rescaling of weights reaches a model input."
    return layer, Kind.SCALED_CHANNELS, largest, problem, remedy


def _weights(evidence: Evidence, twin: FloatTwin) -> _Description:
    part, difference = evidence.part, evidence.difference
    remedy = (
        "If you trained the quantized model, this is no fault but what training changed: judge the model by its "
        "accuracy on labels, or bring it nearer with fine_tune(quantized, data, teacher=float_model), which keeps the "
        "training. If not, quantize_model(float_model) again."
    )
    dead = difference.other.constant & ~difference.exact.constant
    noise = difference.noise
    if noise[dead].sum() * 2 > noise.sum():
        channels = _indices(dead)
        problem = f"{_channels(channels)} always the same value, but not in the float model."
        return part.path, Kind.DEAD_CHANNEL, channels, problem, remedy
    names = [own.name for own, _ in twin.changed(part.call.operation) if own.name != "bias"]
    channels = _guilty(noise)
    problem = f"Its weights ({', '.join(names)}) are not those of the float model."
    equalized = (
        "If post_training_quantize equalized channels, pass the equalized model as float_model: kept/float.keras of "
        "--keep, or accuracy.equalize(model, images). "
    )
    return part.path, Kind.WEIGHTS, channels, problem, equalized + remedy


def _bias(evidence: Evidence, twin: FloatTwin) -> _Description:
    difference, noise = evidence.difference, evidence.noise
    problem = f"{1 - noise[BIAS] / noise[AS_IS]:.1%} of its noise at the output is a constant shift of its channels."
    remedy = "tensorflow_quantization.accuracy.correct_biases(float_model, quantized, data)."
    return evidence.part.path, Kind.BIAS, _guilty(difference.noise), problem, remedy


def _indices(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(mask))


def _guilty(noise: np.ndarray) -> tuple[int, ...]:
    """Returns the fewest channels that have at least half of the noise; none if these are more than half of them."""
    order = np.argsort(-noise, kind="stable")
    count = int(np.searchsorted(np.cumsum(noise[order]), noise.sum() / 2)) + 1
    return tuple(sorted(int(i) for i in order[:count])) if count * 2 <= noise.size else ()


def _apart(magnitude: np.ndarray) -> tuple[int, ...]:
    """Returns the channels, at most half, above the largest gap, as a ratio, between the ranges of channels."""
    order = np.argsort(-magnitude, kind="stable")
    alive = magnitude[order][magnitude[order] > 0]  # a channel of zeros is no scaled one
    gaps = (alive[:-1] / alive[1:])[: max(alive.size // 2, 1)]
    count = int(np.argmax(gaps)) + 1
    return tuple(sorted(int(i) for i in order[:count]))


def _channels(channels: tuple[int, ...]) -> str:
    names = shortened([str(channel) for channel in channels])
    return f"Channel {names} has" if len(channels) == 1 else f"Channels {names} have"
