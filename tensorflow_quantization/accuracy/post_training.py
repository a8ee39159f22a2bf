"""`post_training_quantize`: a float model in, a quantized model out, without training and without labels."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from tensorflow_quantization.accuracy.adaptive_rounding import exact_kernels, train_rounding
from tensorflow_quantization.accuracy.bias_correction import BiasCorrection
from tensorflow_quantization.accuracy.equalization import equalize
from tensorflow_quantization.accuracy.equalized_models import remember
from tensorflow_quantization.accuracy.layer_by_layer import layer_by_layer
from tensorflow_quantization.accuracy.rounding import WeightRounding
from tensorflow_quantization.accuracy.signal_to_noise import SignalToNoise
from tensorflow_quantization.accuracy.weight_ranges import clip_weights
from tensorflow_quantization.calibration import calibrate
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import first_batches
from tensorflow_quantization.model.weights import float32_array
from tensorflow_quantization.quantize import QuantizationSpec, quantize_model
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import must_be_one_of

EFFORTS = ("fast", "best")
#: Samples that are used. The statistics of more are the same, and all are in memory at once.
_SAMPLES = 256


@suggests_arguments
def post_training_quantize(
    model: keras.Model,
    data: Any,
    *,
    target: str | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    quantization_spec: QuantizationSpec | None = None,
    effort: str = "fast",
    method: str = "mse",
    verbose: int = 1,
) -> keras.Model:
    """Quantizes a float model without training and without labels, as accurately as the methods of this package can.

    In this order: `equalize` the channels, `quantize_model`, `calibrate`, `clip_weights` below 8 bits, and, for one
    layer after the other, `round_weights` and `correct_biases`; with `effort="best"`, `adapt_rounding` goes on from
    there. Each is also a function of its own.

    Examples:
        >>> quantized = post_training_quantize(model, images, target="onnxruntime", verbose=0)
        >>> quantized.name == model.name
        True

    Args:
        model: the float model; unchanged.
        data: the calibration set as `calibrate` takes it, without labels. The first 256 samples are used, all of them
            in memory at once.
        target: the runtime, as in `quantize_model`; default `None`.
        weight_bits, activation_bits: int, 2 to 8; default `None`, which is 8.
        quantization_spec: `QuantizationSpec` of single layers, as in `quantize_model`; default `None`.
        effort: "fast" (default); or "best", which also trains the roundings block by block, for minutes, and pays at
            4 bits.
        method: how ranges are estimated, as in `calibrate`; default "mse".
        verbose: 1 (default) prints the signal-to-noise ratio of the outputs after each stage, and a progress bar of
            blocks; 0 nothing.

    Returns:
        The quantized model, calibrated. It trains, saves and exports as the result of `quantize_model` does.

    Raises:
        TypeError, ValueError: as `quantize_model` and `calibrate`, or there is no such effort.
    """
    if effort not in EFFORTS:
        raise ValueError(must_be_one_of("effort", EFFORTS, effort))
    batches = first_batches(LayerGraph.trace(model), data, _SAMPLES, "The calibration data")
    arguments: dict[str, Any] = {
        "target": target,
        "quantization_spec": quantization_spec,
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
    }
    plan_model(model, **arguments)  # raises what `quantize_model` would raise, before any work
    progress = _Progress(model, batches) if verbose else None
    bits = 8 if weight_bits is None else weight_bits
    equalized = equalize(model, batches, weight_bits=bits, activation_bits=activation_bits or 8)
    quantized = quantize_model(equalized, **arguments)
    calibrate(quantized, batches, method=method, verbose=0)
    _report(progress, quantized, "equalized, quantized, calibrated")
    if bits < 8:
        clip_weights(quantized)
        _report(progress, quantized, "weights clipped")
    exact = exact_kernels(quantized)
    layer_by_layer(quantized, batches, [WeightRounding(), BiasCorrection()], equalized)
    _report(progress, quantized, "weights rounded, biases corrected")
    if effort == "best":
        nearer, trained = train_rounding(equalized, quantized, batches, exact, verbose=verbose)
        _report(progress, quantized, f"roundings trained: {nearer} of {trained} blocks are nearer")
    remember(quantized, model, equalized)
    return quantized


class _Progress:
    """The outputs of the float model for one batch, to measure each stage against."""

    def __init__(self, model: keras.Model, batches: list[Any]):
        self._batch = batches[-1]
        self._expected = self._outputs(model)

    def decibels(self, quantized: keras.Model) -> float:
        """Returns the signal-to-noise ratio of the outputs, in decibels."""
        ratio = SignalToNoise()
        for expected, got in zip(self._expected, self._outputs(quantized), strict=True):
            ratio.update(expected, got)
        return ratio.decibels

    def _outputs(self, model: keras.Model) -> list[Any]:
        return [float32_array(y) for y in tree.flatten(model(self._batch, training=False))]


def _report(progress: _Progress | None, quantized: keras.Model, stage: str) -> None:
    if progress is not None:
        print(f"{progress.decibels(quantized):6.1f} dB  {stage}")
