import keras
import numpy as np
import pytest
import small_models
from keras import ops

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.calibration.calibrate import activation_quantizers
from tensorflow_quantization.training import FreezeRanges, distill, freeze_ranges


class Ranges(keras.callbacks.Callback):
    """The ranges at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append([ops.convert_to_numpy(q.range).tolist() for q in activation_quantizers(self.model)])


def test_ranges_move_before_the_epoch_and_stay_from_it_on(images):
    quantized = quantize_model(small_models.cnn(), ranges="last")
    quantized.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    ranges = Ranges()
    quantized.fit(*images, epochs=4, verbose=0, callbacks=[FreezeRanges(2), ranges])
    first, second, third, fourth = ranges.seen
    assert first != second
    assert second == third == fourth
    assert all(q.frozen for q in activation_quantizers(quantized))


def test_learned_steps_go_on_training(images):
    quantized = calibrate(quantize_model(small_models.cnn(), ranges="learned"), images[0], verbose=0)
    quantized.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    quantized.fit(*images, epochs=2, verbose=0, callbacks=[FreezeRanges(0)])
    assert any(float(q.step_change) != 0 for q in activation_quantizers(quantized))


def test_ranges_of_a_trained_model_move_again_in_nested_models_too(images):
    quantized = calibrate(quantize_model(small_models.nested()), images[0], verbose=0)
    quantized.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.zeros((len(images[0]), *quantized.output_shape[1:]), "float32")

    def moved():
        quantizers = activation_quantizers(quantized)
        before = [ops.convert_to_numpy(q.range) for q in quantizers]
        quantized.fit(2 * images[0], y, verbose=0)
        return [bool((ops.convert_to_numpy(q.range) != r).any()) for q, r in zip(quantizers, before, strict=True)]

    assert not any(moved())
    assert freeze_ranges(quantized, False) is quantized
    assert all(moved())
    freeze_ranges(quantized)
    assert not any(moved())


def test_ranges_of_a_student_move_again(images):
    model = small_models.cnn()
    quantized = calibrate(quantize_model(model), images[0], verbose=0)
    distilled = distill(quantized, model)
    distilled.compile(keras.optimizers.SGD(0.0))
    ranges = [ops.convert_to_numpy(q.range) for q in activation_quantizers(quantized)]
    for frozen in (True, False):
        distilled.fit(2 * images[0], verbose=0)
        now = [ops.convert_to_numpy(q.range) for q in activation_quantizers(quantized)]
        assert all((a != b).any() for a, b in zip(now, ranges, strict=True)) is not frozen
        freeze_ranges(distilled, False)


def test_a_model_without_ranges_is_refused(cnn):
    with pytest.raises(ValueError, match="has no quantizers"):
        freeze_ranges(cnn)
    with pytest.raises(TypeError, match=r"keras\.Model"):
        freeze_ranges(cnn.layers[1])
