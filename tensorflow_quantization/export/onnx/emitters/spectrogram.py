"""Spectrograms: the Fourier transform of windows of a signal, as a convolution with cosines and sines."""

from __future__ import annotations

import math

import keras
import numpy as np
import onnx_ir as ir

from tensorflow_quantization.export.errors import NotExpressibleError
from tensorflow_quantization.export.onnx.emission import Emission, to_numpy
from tensorflow_quantization.export.onnx.emitters._windows import unless_ones, window_attributes
from tensorflow_quantization.export.onnx.emitters.convolution import channels_of, kernel_to_onnx
from tensorflow_quantization.export.onnx.registry import emitter
from tensorflow_quantization.export.onnx.values import Value


@emitter("STFTSpectrogram", layout="channels_first")
def stft_spectrogram(e: Emission, layer, x: Value) -> Value:
    x = e.cast(x, "float32")
    # A layer has only the kernels that its mode needs.
    kernels = {name: kernel for name in ("real", "imag") if (kernel := e.array(f"{name}_kernel")) is not None}
    if layer.mode in ("real", "imag", "stft"):
        kernel = np.concatenate(list(kernels.values()), axis=-1)
        return _arranged(e, layer, x, _transform(e, layer, x, kernel, layer.mode))
    real, imaginary = (_transform(e, layer, x, kernel, name) for name, kernel in kernels.items())
    if layer.mode == "angle":
        shape = (x.shape[0], None, None)
        y = e.emit(keras.ops.arctan2, *(Value(part, shape) for part in (imaginary, real)), inner="angle").onnx
        return _arranged(e, layer, x, y)
    y = e.op("Add", *(e.op("Mul", part, part) for part in (real, imaginary)))
    if layer.mode == "psd":
        # The power of negative frequencies is added: double all frequencies except zero and the highest.
        factors = np.full((kernels["real"].shape[-1], 1), 2, np.float32)
        factors[[0, -1]] = 1
        return _arranged(e, layer, x, e.op("Mul", y, np.tile(factors, (channels_of(x), 1))))
    y = e.op("Sqrt", e.op("Max", y, keras.config.epsilon()))
    if layer.mode == "log":
        y = e.op("Log", e.op("Max", y, keras.config.epsilon()))
    return _arranged(e, layer, x, y)


def _transform(e: Emission, layer, x: Value, kernel: np.ndarray, name: str) -> ir.Value:
    """The convolution of each channel with a kernel (frame_length, 1, frequencies).

    Its shape is (batch, channels * frequencies, frames).
    """
    channels, strides = channels_of(x), [layer.frame_step or layer.frame_length // 2]
    return e.op(
        "Conv",
        x,
        e.stored(f"{name}_kernel", np.tile(kernel_to_onnx(kernel), (channels, 1, 1))),
        kernel_shape=[layer.frame_length],
        strides=unless_ones(strides),
        group=channels if channels > 1 else None,
        **window_attributes(layer.padding, x.stored_shape[2:], [layer.frame_length], strides, [1]),
    )


def _arranged(e: Emission, layer, x: Value, y: ir.Value) -> Value:
    """The output of the layer from a tensor (batch, channels * frequencies, frames)."""
    if not layer.expand_dims:
        return e.output(y, x)
    spec = e.outputs[0]
    last = layer.data_format == "channels_last"  # (batch, frames, frequencies, channels) in Keras
    frequencies = spec.shape[2 if last else 3]
    y = e.reshape(y, [0, channels_of(x), frequencies, -1])
    return Value(y, tuple(spec.shape), spec.dtype, (0, 3, 2, 1) if last else (0, 1, 3, 2))


@emitter("MelSpectrogram")
def mel_spectrogram(e: Emission, layer, x: Value) -> Value:
    if x.rank != 2:
        raise NotExpressibleError(f"has an input of rank {x.rank}; the input must be (batch, samples)")
    _check_frames(layer, x.shape[1], e.outputs[0].shape[2])
    x = e.cast(x, "float32")
    signal = e.op("Pad", e.op("Unsqueeze", x, np.array([1])), _padding(layer), mode="reflect")
    spectrum = e.op("Conv", signal, e.stored("fourier", _fourier(layer)), strides=[layer.sequence_stride])
    bins = layer.fft_length // 2 + 1
    squares = [e.op("Mul", part, part) for part in e.split(spectrum, [bins, bins], axis=1)]
    power = e.op("Add", *squares)
    if layer.mag_exp == 1:
        power = e.op("Sqrt", power)
    elif layer.mag_exp != 2:
        power = e.op("Pow", power, layer.mag_exp / 2)
    y = e.op("MatMul", e.stored("mel", _mel_weights(layer, bins)), power)
    return e.output(_decibels(e, layer, y) if layer.power_to_db else y)


def _check_frames(layer, samples: int | None, promised: int | None) -> None:
    frames = None if samples is None else (samples - layer.fft_length % 2) // layer.sequence_stride + 1
    if frames != promised:
        raise NotExpressibleError(
            f"computes {frames} frames from {samples} samples, but Keras infers {promised}; use an even fft_length and "
            "signals whose length is a multiple of sequence_stride"
        )


def _padding(layer) -> np.ndarray:
    """The padding of the signal: half a transform on each side, without the zeros around the window."""
    left, right = (layer.fft_length // 2 - zeros for zeros in _zeros(layer))
    return np.array([0, 0, left, 0, 0, right])


def _zeros(layer) -> tuple[int, int]:
    """The numbers of zeros before and after a window that pad it to the length of the transform."""
    count = layer.fft_length - layer.sequence_length
    return count // 2, count - count // 2


def _fourier(layer) -> np.ndarray:
    """The kernel of the transform, (2 * bins, 1, sequence_length): cosines, then sines, times the window.

    The discrete Fourier transform is X[k] = sum over n of w[n] x[n] exp(-2 pi i k n / N). The power does not depend on
    the sign of the sines.
    """
    samples = np.arange(layer.sequence_length)
    # Reduce to one turn in integers, which is exact.
    places = np.arange(layer.fft_length // 2 + 1)[:, None] * (samples + _zeros(layer)[0])[None]
    angles = 2 * math.pi * (places % layer.fft_length) / layer.fft_length
    return (np.concatenate([np.cos(angles), np.sin(angles)]) * _window(layer))[:, None].astype(np.float32)


def _window(layer) -> np.ndarray:
    """The periodic window of `keras.ops.stft`, (sequence_length,), float64."""
    if layer.window is None:
        return np.ones(layer.sequence_length)
    if not isinstance(layer.window, str):
        return to_numpy(layer.window, "float32").astype(np.float64)
    raised = {"hann": 0.5, "hamming": 0.54}[layer.window]
    # With TensorFlow, a window of odd length is symmetric. With the other backends, it is periodic.
    ends = keras.backend.backend() == "tensorflow" and layer.sequence_length % 2
    turns = np.arange(layer.sequence_length) / (layer.sequence_length - ends)
    return raised - (1 - raised) * np.cos(2 * math.pi * turns)


def _mel_weights(layer, bins: int) -> np.ndarray:
    """The mel weight matrix of Keras, transposed, (num_mel_bins, bins)."""
    weights = layer.linear_to_mel_weight_matrix(
        layer.num_mel_bins, bins, layer.sampling_rate, layer.min_freq, layer.max_freq
    )
    return np.ascontiguousarray(to_numpy(weights, "float32").T)


def _decibels(e: Emission, layer, power: ir.Value) -> ir.Value:
    """10 * log10(power / ref_power), and at least the maximum of the batch minus `top_db`."""
    bel = 10 / math.log(10)
    reference = bel * math.log(max(abs(layer.ref_power), layer.min_power))
    y = e.op("Mul", e.op("Log", e.op("Max", power, layer.min_power)), bel)
    y = e.op("Sub", y, reference) if reference else y
    return e.op("Max", y, e.op("Sub", e.op("ReduceMax", y, keepdims=0), layer.top_db))
