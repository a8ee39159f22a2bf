"""`post_training_quantize`: a float model in, a quantized model out, without training and without labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tensorflow_quantization.accuracy.adaptive_rounding import train_rounding
from tensorflow_quantization.accuracy.bias_correction import BiasCorrection
from tensorflow_quantization.accuracy.equalization import equalize
from tensorflow_quantization.accuracy.equalized_models import remember
from tensorflow_quantization.accuracy.kernels import Kernel, kernels_of
from tensorflow_quantization.accuracy.layer_by_layer import layer_by_layer
from tensorflow_quantization.accuracy.rounding import WeightRounding
from tensorflow_quantization.accuracy.small_kernels import SmallKernels
from tensorflow_quantization.accuracy.stages import Stages
from tensorflow_quantization.accuracy.weight_ranges import clip
from tensorflow_quantization.calibration import calibrate
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import first_batches
from tensorflow_quantization.quantize import QuantizationSpec, quantize_model
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.quantizers.scheme import check_bits
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import must_be_one_of

EFFORTS = ("fast", "best")
#: Samples that are used. The statistics of more are the same, and all are in memory at once.
_SAMPLES = 256
#: With this many batches or more, one of so many judges, and kernels learn nothing from it.
_BATCHES_OF_A_JUDGE = 4


@suggests_arguments
def post_training_quantize(
    model: keras.Model,
    data: Any,
    *,
    target: str | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    small_kernel_bits: int | None = 7,
    block_size: int | None = None,
    dtype: str | None = None,
    quantization_spec: QuantizationSpec | None = None,
    ranges: str = "ema",
    weight_ranges: str = "minmax",
    effort: str = "fast",
    method: str = "mse",
    verbose: int = 1,
) -> keras.Model:
    """Quantizes a float model without training and without labels, as accurately as the methods of this package can.

    In this order: `quantize_model` and `calibrate`; `equalize` the channels; for one layer after the other,
    `round_weights`, beside the float model, and `correct_biases`. A stage that brings the outputs no nearer to the
    float model is undone; below 8 bits, models with and without equalized channels are compared once they are rounded.
    With `effort="best"`, `adapt_rounding` is one more stage. Each is also a function of its own.

    Examples:
        >>> quantized = post_training_quantize(model, images, target="onnxruntime", verbose=0)
        >>> quantized.name == model.name
        True

    Args:
        model: the float model; unchanged.
        data: the calibration set as `calibrate` takes it, without labels. The first 256 samples are used, all of them
            in memory at once; of four batches or more, each fourth only judges the stages, and tells the ranges once
            it is decided whether channels are equalized.
        target: the runtime, as in `quantize_model`; default `None`.
        weight_bits, activation_bits: int, 2 to 8; default `None`, which is 8.
        small_kernel_bits: int, 2 to 8: the bits of the layers with the fewest weights, together up to 3.5 % of all
            weights, where `weight_bits` is lower. Default 7, which no processor saturates; `None`: as all others.
            `quantization_spec` wins.
        block_size: int, the inputs that share a scale of the weights, as in `quantize_model`; default `None`: no
            blocks.
        dtype: "float8_e4m3fn": numbers of FP8, for `target="tensorrt"`, as in `quantize_model`; default `None`:
            integers.
        quantization_spec: `QuantizationSpec` of single layers, as in `quantize_model`; default `None`.
        ranges, weight_ranges: how ranges follow a later training, as in `quantize_model`; default "ema" and "minmax".
        effort: "fast" (default); or "best", which also trains the roundings block by block, for minutes, and pays at
            4 bits.
        method: how ranges are estimated, as in `calibrate`; default "mse".
        verbose: 1 (default) prints the signal-to-noise ratio of the outputs after each stage, and a progress bar of
            blocks; 2 the same in plain lines, for a log; 0 nothing.

    Returns:
        The quantized model, calibrated. It trains, saves and exports as the result of `quantize_model` does.

    Raises:
        TypeError, ValueError: as `quantize_model` and `calibrate`, or there is no such effort, or not with this dtype.
    """
    if effort not in EFFORTS:
        raise ValueError(must_be_one_of("effort", EFFORTS, effort))
    if effort == "best" and dtype is not None:
        raise ValueError(f'effort="best" trains the roundings of integers: leave it out with dtype={dtype!r}.')
    if small_kernel_bits is not None:
        check_bits(small_kernel_bits, "small_kernel_bits")
    batches = first_batches(LayerGraph.trace(model), data, _SAMPLES, "The calibration data")
    arguments: dict[str, Any] = {
        "target": target,
        "quantization_spec": quantization_spec,
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "block_size": block_size,
        "dtype": dtype,
    }
    plan_model(model, **arguments)  # raises what `quantize_model` would raise, before any work
    arguments |= {"ranges": ranges, "weight_ranges": weight_ranges}  # which the next call checks
    learned_from, judges = _split(batches)
    stages = Stages(model, judges, verbose)
    if verbose:
        print("Signal-to-noise ratio of the outputs in Keras, on samples of the calibration:")
    reference, quantized = model, quantize_model(model, **arguments)
    if small_kernel_bits is not None and block_size is None and small_kernel_bits > (weight_bits or 8):
        small = SmallKernels(quantized, small_kernel_bits)
        if small.paths:
            arguments |= {"custom_qdq_cases": [small]}
            quantized = _again(model, arguments)
    calibrate(quantized, learned_from, method=method, verbose=0)
    stages.start(quantized, "quantized, calibrated")

    # With a block size, the bits are of weights in blocks alone, which need no equalized channels.
    bits = 8 if weight_bits is None or block_size is not None else weight_bits
    equalized = equalize(model, learned_from, weight_bits=bits, activation_bits=activation_bits or 8)
    rescaled = None
    if not _same_weights(model, equalized):
        rescaled = calibrate(_again(equalized, arguments), learned_from, method=method, verbose=0)
    # Equalized channels have finer steps, but values that calibration did not see are clipped in all of them: which is
    # more depends on the network, so the judges show in no range until this is decided. Nearest integers of few bits
    # leave noise that hides it: then both models are rounded.
    few_bits = any(kernel.quantizer.scheme.bits < 8 for kernel in kernels_of(quantized))
    if rescaled is not None and not few_bits:
        if stages.gains(rescaled, "channels equalized"):
            reference, quantized = equalized, rescaled
        rescaled = None

    def take_all_ranges() -> None:
        if learned_from is not batches:
            calibrate(quantized, batches, method=method, verbose=0)
            stages.start(quantized, "ranges of all samples")

    if rescaled is None:
        take_all_ranges()
    plain = quantized.get_weights()
    start = _round(quantized, learned_from, reference)
    if not stages.keep_gain(quantized, plain, "weights rounded, biases corrected"):
        start = plain
    if rescaled is not None:
        before = _round(rescaled, learned_from, equalized)
        if stages.gains(rescaled, "the same with equalized channels"):
            reference, quantized, start = equalized, rescaled, before
        take_all_ranges()
    if effort == "best":
        best = quantized.get_weights()
        quantized.set_weights(start)
        if rescaled is not None:
            calibrate(quantized, batches, method=method, verbose=0)
        nearer, trained = train_rounding(reference, quantized, learned_from, verbose=verbose)
        stages.keep_gain(quantized, best, f"roundings trained: {nearer} of {trained} blocks are nearer")
    remember(quantized, model, reference)
    return quantized


def _again(model: keras.Model, arguments: dict[str, Any]) -> keras.Model:
    """Quantizes a model without the warnings that were given for it before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_model(model, **arguments)


def _round(quantized: keras.Model, batches: list[Any], reference: keras.Model) -> list[Any]:
    """Rounds weights and corrects biases; returns the weights to start from anew."""
    for kernel in _of_shared_layers(quantized):
        if kernel.quantizer.scheme.bits < 8:
            clip(kernel)
    before = quantized.get_weights()
    layer_by_layer(quantized, batches, [WeightRounding(), BiasCorrection()], reference)
    return before


def _of_shared_layers(quantized: keras.Model) -> Iterator[Kernel]:
    """Yields the kernels of layers that are called several times, which keep the nearest integers."""
    graph = LayerGraph.trace(quantized).flatten()
    shared = {id(call.operation): call.operation for call in graph.calls if not graph.is_only_call(call)}
    for operation in shared.values():
        if isinstance(operation, keras.layers.Layer):
            yield from kernels_of(operation)


def _split(batches: list[Any]) -> tuple[list[Any], list[Any]]:
    """Returns the batches that kernels learn from, and those that stages are judged by; few batches are both."""
    if len(batches) < _BATCHES_OF_A_JUDGE:
        return batches, batches
    judges = range(_BATCHES_OF_A_JUDGE - 1, len(batches), _BATCHES_OF_A_JUDGE)
    return [x for i, x in enumerate(batches) if i not in judges], [batches[i] for i in judges]


def _same_weights(model: keras.Model, other: keras.Model) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
