import numpy as np
import pytest

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.calibration.calibrate import activation_quantizers
from tensorflow_quantization.reporting.histograms import BINS, activation_histograms, weight_histogram


def test_input_histogram_counts_all_values_as_numpy_does(cnn, images):
    quantized = calibrate(quantize_model(cnn, target="onnxruntime"), images[0], verbose=0)
    found = activation_histograms(quantized, images[0])
    low, high, counts = found[id(activation_quantizers(quantized)[0])]
    assert (low, high) == (images[0].min(), images[0].max())
    assert sum(counts) == images[0].size and len(counts) == BINS
    expected = np.histogram(images[0], BINS)[0]
    # A value may be counted in the next bin: the histogram is made of finer bins.
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 0.02 * images[0].size


def test_values_are_those_of_the_float_computation(cnn, images):
    quantized = calibrate(quantize_model(cnn, target="onnxruntime"), images[0] / 10, verbose=0)
    before = [q.range.numpy().tolist() for q in activation_quantizers(quantized)]
    _, high, _ = activation_histograms(quantized, images[0])[id(activation_quantizers(quantized)[0])]
    assert high == images[0].max() > 5 * before[0][1], "the narrow range does not clip what is counted"
    assert [q.range.numpy().tolist() for q in activation_quantizers(quantized)] == before


def test_constant_weight_has_one_full_bin():
    low, high, counts = weight_histogram(np.full((2, 3), 0.5))
    assert low == high == 0.5 and sorted(counts)[-2:] == [0, 6]


def test_data_that_does_not_fit_says_so(cnn, images):
    quantized = quantize_model(cnn, target="onnxruntime")
    with pytest.raises(ValueError, match="data"):
        activation_histograms(quantized, images[0][:, :4])
