import keras
import numpy as np
import pytest
import small_models
from keras import ops
from small_models import values

from tensorflow_quantization import quantize_model
from tensorflow_quantization.training import FreezeBatchNormalization


class Statistics(keras.callbacks.Callback):
    """The weights of the BatchNormalization at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        layer = self.model.get_layer("bn")
        self.seen.append([ops.convert_to_numpy(v).tolist() for v in (layer.moving_mean, layer.gamma)])


def test_statistics_stay_from_the_epoch_on_and_the_scale_is_trained(images):
    quantized = quantize_model(small_models.cnn())
    quantized.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    statistics = Statistics()
    quantized.fit(*images, epochs=4, verbose=0, callbacks=[FreezeBatchNormalization(2), statistics])
    (first, _), (second, a), (third, b), (fourth, c) = statistics.seen
    assert first != second
    assert second == third == fourth
    assert a != b != c
    layer = quantized.get_layer("bn")
    assert layer.trainable
    assert [v.name for v in layer.trainable_variables] == ["gamma", "beta"]


def test_frozen_layer_normalizes_with_its_moving_statistics(images):
    model = small_models.cnn()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = images[0]
    expected = np.mean(np.square(model.predict(x, verbose=0)))
    zeros = np.zeros((len(x), 5), "float32")
    logs = model.fit(x, zeros, batch_size=16, verbose=0, callbacks=[FreezeBatchNormalization(0)]).history
    np.testing.assert_allclose(logs["loss"], [expected], rtol=1e-4)
    assert np.abs(model.fit(x, zeros, batch_size=16, verbose=0).history["loss"][0] - expected) > 1e-3 * expected


def test_a_layer_that_is_not_trainable_stays_so(images):
    model = small_models.cnn()
    model.get_layer("bn").trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = values(model.get_layer("bn"))
    model.fit(*images, verbose=0, callbacks=[FreezeBatchNormalization(0)])
    assert not model.get_layer("bn").trainable
    for old, new in zip(before, values(model.get_layer("bn")), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_checkpoint_of_frozen_statistics_goes_on_as_the_model_does(images, tmp_path):
    quantized = quantize_model(small_models.cnn())
    quantized.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "frozen.keras")
    quantized.fit(*images, verbose=0, callbacks=[FreezeBatchNormalization(0), checkpoint])
    loaded = keras.saving.load_model(tmp_path / "frozen.keras")
    for model in (quantized, loaded):
        model.fit(*images, verbose=0, shuffle=False)
    for one, other in zip(values(quantized), values(loaded), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_two_callbacks_may_freeze_the_same_layers(images):
    model = small_models.cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    mean = values(model.get_layer("bn"))[2]
    model.fit(*images, epochs=2, verbose=0, callbacks=[FreezeBatchNormalization(0), FreezeBatchNormalization(1)])
    np.testing.assert_array_equal(values(model.get_layer("bn"))[2], mean)
    model.fit(*images, verbose=0)
    assert np.abs(values(model.get_layer("bn"))[2] - mean).max() > 0


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_release_ends_what_an_interrupt_left(images):
    model = small_models.cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    freeze, mean = FreezeBatchNormalization(0), values(model.get_layer("bn"))[2]
    with pytest.raises(KeyboardInterrupt):
        model.fit(*images, verbose=0, callbacks=[freeze, Stop()])
    np.testing.assert_array_equal(values(model.get_layer("bn"))[2], mean)
    freeze.release()
    model.fit(*images, verbose=0)
    assert np.abs(values(model.get_layer("bn"))[2] - mean).max() > 0


def test_the_next_callback_ends_what_an_interrupt_left(images):
    model = small_models.cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(KeyboardInterrupt):
        model.fit(*images, verbose=0, callbacks=[FreezeBatchNormalization(0), Stop()])
    mean = values(model.get_layer("bn"))[2]
    model.fit(*images, verbose=0, callbacks=[FreezeBatchNormalization(1)])
    assert np.abs(values(model.get_layer("bn"))[2] - mean).max() > 0


class Own(keras.layers.BatchNormalization):
    def call(self, inputs, training=None):
        return super().call(inputs, training=training)


def test_a_class_of_its_own_is_frozen_too(images):
    inputs = keras.Input(images[0].shape[1:])
    x = keras.layers.Flatten()(Own(name="bn")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    mean = values(model.get_layer("bn"))[2]
    model.fit(*images, verbose=0, callbacks=[FreezeBatchNormalization(0)])
    np.testing.assert_array_equal(values(model.get_layer("bn"))[2], mean)
