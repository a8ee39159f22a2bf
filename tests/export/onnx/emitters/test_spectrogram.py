import keras
import numpy as np
import pytest
from keras import layers
from onnx_models import assert_agrees, export, layer_model

from tensorflow_quantization.export import UnsupportedLayerError


def signal(samples, batch=2):
    """Two tones, one growing, and noise."""
    rng = np.random.default_rng(0)
    t = np.arange(samples) / 16000
    tones = np.sin(2 * np.pi * 440 * t) + t * np.sin(2 * np.pi * 3000 * t)
    return np.stack([tones * (i + 1) + 1e-2 * rng.normal(size=samples) for i in range(batch)]).astype("float32")


MODES = ["log", "magnitude", "psd", "real", "imag", "angle", "stft"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"padding": "same"}, {"expand_dims": True}, {"frame_step": 1}], ids=str)
@pytest.mark.parametrize("length", [100, None], ids=["known", "unknown"])
@pytest.mark.parametrize("channels", [1, 2])
def test_stft_spectrogram(tmp_path, mode, options, length, channels):
    model = layer_model(layers.STFTSpectrogram(mode=mode, frame_length=16, **options), (length, channels))
    x = np.random.default_rng(0).normal(size=(2, 100, channels)).astype("float32")
    assert_agrees(model, tmp_path / "m.onnx", [x])


@pytest.mark.parametrize("options", [{"window": None}, {"scaling": "spectrum", "fft_length": 64}], ids=str)
@pytest.mark.parametrize("expand_dims", [False, True])
def test_stft_spectrogram_of_channels_first(tmp_path, options, expand_dims):
    layer = layers.STFTSpectrogram(
        frame_length=16, expand_dims=expand_dims, data_format="channels_first", mode="magnitude", **options
    )
    assert_agrees(layer_model(layer, (2, 100)), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sequence_length": 20},
        {"sequence_length": 21},
        {"window": "hamming"},
        {"window": None},
        {"window": np.linspace(0.5, 1, 32).tolist()},
        {"min_freq": 300.0, "max_freq": 4000.0, "sampling_rate": 8000},
        {"power_to_db": False},
        {"power_to_db": False, "mag_exp": 1.0},
        {"power_to_db": False, "mag_exp": 1.5},
        {"top_db": 20.0},
        {"ref_power": 3.0, "min_power": 1e-3},
    ],
    ids=str,
)
def test_mel_spectrogram(tmp_path, options):
    layer = layers.MelSpectrogram(**{"fft_length": 32, "sequence_stride": 16, "num_mel_bins": 4, **options})
    assert_agrees(layer_model(layer, (160,)), tmp_path / "m.onnx", [signal(160)])


def test_mel_spectrogram_of_a_second_as_keras_has_it_by_default(tmp_path):
    model = layer_model(layers.MelSpectrogram(), (16000,))
    assert_agrees(model, tmp_path / "m.onnx", [signal(16000)])


def test_mel_spectrogram_of_unknown_length(tmp_path):
    model = layer_model(layers.MelSpectrogram(fft_length=64, sequence_stride=16, num_mel_bins=8), (None,))
    assert_agrees(model, tmp_path / "m.onnx", [signal(320)])
    assert_agrees(model, tmp_path / "m.onnx", [signal(480)])


def test_a_network_that_starts_with_a_spectrogram(tmp_path):
    inputs = keras.Input((640,))
    x = layers.MelSpectrogram(fft_length=64, sequence_stride=32, num_mel_bins=16)(inputs)
    x = layers.Conv2D(4, 3, activation="relu")(layers.Reshape((16, -1, 1))(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    assert_agrees(model, tmp_path / "m.onnx", [signal(640)])


def test_a_shape_that_keras_promises_and_does_not_keep_is_refused(tmp_path):
    layer = layers.MelSpectrogram(fft_length=32, sequence_stride=16, num_mel_bins=4)
    with pytest.raises(UnsupportedLayerError, match="computes 10 frames from 159 samples, but Keras infers 11"):
        export(layer_model(layer, (159,)), tmp_path / "m.onnx")


def test_several_signals_a_sample_are_refused(tmp_path):
    with pytest.raises(UnsupportedLayerError, match=r"rank 3; the input must be"):
        export(layer_model(layers.MelSpectrogram(fft_length=32, num_mel_bins=4), (2, 100)), tmp_path / "m.onnx")
