import warnings

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import assert_same_arrays, data_for, values

from tensorflow_quantization import calibrate, fine_tune, quantize_model
from tensorflow_quantization.calibration.calibrate import activation_quantizers
from tensorflow_quantization.training import Dampen


def pair(model=None, **arguments):
    """A float model, and its calibrated quantized form."""
    model = model or small_models.residual()
    return model, calibrate(quantize_model(model, **arguments), data_for(model), verbose=0)


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def noise(model, quantized, x):
    expected, got = (m.predict(x, verbose=0) for m in (model, quantized))
    return ((got - expected) ** 2).sum() / (expected**2).sum()


class Stop(keras.callbacks.Callback):
    """Interrupts the training in its last epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.last = epoch == self.params["epochs"] - 1

    def on_train_batch_end(self, batch, logs=None):
        if self.last and batch:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_teacher_brings_the_outputs_nearer(images):
    x = small_models.images(128)[0]
    model, quantized = pair(weight_bits=3, weight_ranges="learned", ranges="learned", activation_bits=4)
    before = noise(model, quantized, x)
    untouched = values(model)
    history = fine_tune(quantized, x, teacher=model, epochs=12, batch_size=16, learning_rate=3e-3, verbose=0)
    assert isinstance(history, keras.callbacks.History)
    assert history.model is quantized
    assert len(history.history["loss"]) == 12
    assert noise(model, quantized, x) < 0.7 * before
    assert_same_arrays(values(model), untouched)


@pytest.mark.parametrize("ranges", ["learned", "learned_offset"])
def test_learned_steps_of_small_activations_stay_small(ranges):
    rng = np.random.default_rng(0)
    x = 1e-3 * rng.normal(size=(256, 16)).astype("float32")  # a step is 3e-5, and the learning rate a thousandth
    inputs = keras.Input((16,))
    model = keras.Model(inputs, layers.Dense(8, use_bias=False, kernel_initializer="random_normal")(inputs))
    model.layers[-1].kernel.assign(2e4 * model.layers[-1].kernel)
    arguments = {"target": "onnxruntime", "weight_bits": 4, "weight_ranges": "learned", "ranges": ranges}
    quantized = calibrate(quantize_model(model, **arguments), x, verbose=0)
    before = noise(model, quantized, x)
    fine_tune(quantized, x, teacher=model, epochs=2, verbose=0)
    assert noise(model, quantized, x) < 1.5 * before


@pytest.mark.slow
def test_labels_with_the_loss_that_the_model_is_compiled_with(images):
    model = small_models.cnn()
    model.compile("sgd", loss())
    model, quantized = pair(model)
    optimizer, before = quantized.optimizer, quantized.evaluate(*images, verbose=0)
    logs = fine_tune(quantized, images, metrics=["accuracy"], epochs=6, learning_rate=0.01, verbose=0).history
    assert sorted(logs) == ["accuracy", "loss"]
    assert quantized.evaluate(*images, verbose=0) < before
    assert quantized.optimizer is optimizer
    quantized.fit(*images, verbose=0)


def two_heads():
    inputs = keras.Input((4,))
    return keras.Model(inputs, {name: layers.Dense(2, name=name)(inputs) for name in ("left", "right")})


def test_the_loss_weights_and_metrics_that_the_model_is_compiled_with():
    model = two_heads()
    metric = keras.metrics.MeanAbsoluteError(name="mae")
    model.compile(
        "sgd",
        loss={"left": "mse", "right": "mse"},
        loss_weights={"left": 1.0, "right": 0.25},
        metrics={"left": [metric]},
        weighted_metrics={"right": ["mse"]},
    )
    model, quantized = pair(model)
    x = data_for(model)
    y = {"left": np.ones((len(x), 2)), "right": 9 * np.ones((len(x), 2))}
    wanted = quantized.evaluate(x, y, return_dict=True, verbose=0)
    arguments = {"epochs": 1, "learning_rate": 1e-9, "verbose": 0}
    found = fine_tune(quantized, x, y, **arguments).history
    assert sorted(found) == sorted(wanted)
    assert {"left_mae", "right_mse"} < set(found)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], [value], rtol=0.02, err_msg=name)
    others = fine_tune(quantized, x, y, metrics={"right": ["mae"]}, **arguments).history
    assert sorted(others) == ["left_loss", "loss", "right_loss", "right_mae"]
    assert quantized.evaluate(x, y, return_dict=True, verbose=0).keys() == wanted.keys()


def test_any_structure_of_inputs_and_outputs():
    model, quantized = pair(small_models.dict_in_and_out())
    before = values(quantized)
    fine_tune(quantized, data_for(model), teacher=model, epochs=1, verbose=0)
    assert any((a != b).any() for a, b in zip(before, values(quantized), strict=True))


@pytest.mark.slow
def test_an_interrupt_leaves_the_model_as_it_was(images):
    _, quantized = pair(weight_bits=3, weight_ranges="learned")  # statistics follow
    for quantizer in activation_quantizers(quantized):
        quantizer.frozen = False
    before = values(quantized)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(quantized, *images, loss=loss(), epochs=4, batch_size=4, verbose=0, callbacks=[Dampen(1.0), Stop()])
    assert_same_arrays(values(quantized), before)
    bn = quantized.get_layer("bn")
    mean = ops.convert_to_numpy(bn.moving_mean)
    quantized(ops.convert_to_tensor(images[0]), training=True)
    assert np.abs(ops.convert_to_numpy(bn.moving_mean) - mean).max() > 0
    assert not any(q.frozen for q in activation_quantizers(quantized))
    assert not any(v.regularizer for v in quantized.variables)
    assert not quantized.compiled


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_the_model_as_it_was(images):
    x = images[0].copy()
    x[3] = np.nan
    model, quantized = pair()
    before = values(quantized)
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))
    with pytest.raises(ValueError, match="NaN or infinite in epoch 1"):
        fine_tune(quantized, x, teacher=model, epochs=3, batch_size=len(x), callbacks=[count], verbose=0)
    assert_same_arrays(values(quantized), before)
    assert batches == [0]


def test_a_weight_that_is_not_finite_is_an_error_too(images):
    model, quantized = pair()
    before = values(quantized)
    kernel = quantized.get_layer("quant_conv").trainable_weights[0]
    ruin = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kernel.assign(np.nan * kernel))
    with pytest.raises(ValueError, match=r"Weight '.*conv.*' of model .* became NaN or infinite"):
        fine_tune(quantized, images[0], teacher=model, epochs=1, callbacks=[ruin], verbose=0)
    assert_same_arrays(values(quantized), before)


def test_ranges_of_calibration_stay_and_statistics_are_those_of_the_data(images):
    model, quantized = pair()
    ranges = [ops.convert_to_numpy(q.range).tolist() for q in activation_quantizers(quantized)]
    fine_tune(quantized, images[0], teacher=model, epochs=2, reestimate=True, verbose=0)
    assert ranges == [ops.convert_to_numpy(q.range).tolist() for q in activation_quantizers(quantized)]
    conv = keras.Model(quantized.input, quantized.get_layer("quant_conv").output).predict(images[0], verbose=0)
    mean = ops.convert_to_numpy(quantized.get_layer("bn").moving_mean)
    np.testing.assert_allclose(mean, conv.reshape(-1, 4).mean(axis=0), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("bits", "follow"), [((8, 8), False), ((4, 4), False), ((3, 8), True)])
def test_statistics_are_those_of_the_float_model_unless_weights_have_few_bits(images, bits, follow):
    model, quantized = pair(weight_bits=bits[0], activation_bits=bits[1])
    before = [ops.convert_to_numpy(v) for v in quantized.get_layer("bn").non_trainable_variables]
    fine_tune(quantized, images[0], teacher=model, epochs=1, learning_rate=1e-9, verbose=0)
    after = [ops.convert_to_numpy(v) for v in quantized.get_layer("bn").non_trainable_variables]
    assert [np.array_equal(*pair) for pair in zip(before, after, strict=True)] == [not follow] * len(before)


@pytest.mark.slow
def test_a_generator_needs_its_steps(images):
    model, quantized = pair()

    def batches():
        while True:
            yield (images[0],)

    with pytest.raises(ValueError, match="Pass steps_per_epoch"):
        fine_tune(quantized, batches(), teacher=model, verbose=0)
    logs = fine_tune(quantized, batches(), teacher=model, steps_per_epoch=3, epochs=2, verbose=0).history
    assert len(logs["loss"]) == 2


class Rate(keras.callbacks.Callback):
    """The learning rate at the start of the training."""

    def on_train_begin(self, logs=None):
        self.first = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "epochs", "rate"), [(8, 1, 1e-4), (4, 10, 1e-3)])
def test_a_recipe_of_the_bits_unless_the_user_has_one(images, bits, epochs, rate):
    model, quantized = pair(weight_bits=bits)
    seen = Rate()
    history = fine_tune(quantized, images[0], teacher=model, callbacks=[seen], verbose=0)
    assert len(history.history["loss"]) == epochs
    np.testing.assert_allclose(seen.first, rate, rtol=1e-6)
    with pytest.raises(ValueError, match="optimizer or learning_rate, not both"):
        fine_tune(quantized, images[0], teacher=model, optimizer=keras.optimizers.SGD(), learning_rate=0.1)


@pytest.mark.parametrize(
    ("callback", "rates"),
    [
        (lambda: keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9), [4e-4, 4e-4, 2e-4]),
        (lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 1e-4 * (epoch + 1)), [1e-4, 2e-4, 3e-4]),
    ],
)
def test_a_callback_may_set_the_learning_rate(images, callback, rates):
    model, quantized = pair()
    history = fine_tune(
        quantized, images[0], teacher=model, epochs=3, learning_rate=4e-4, callbacks=[callback()], verbose=0
    ).history
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-5)


class Optimizer(keras.callbacks.Callback):
    """The class of the optimizer of a training."""

    def on_train_begin(self, logs=None):
        self.found = type(self.model.optimizer)


@pytest.mark.parametrize("with_teacher", [True, False])
def test_the_loss_of_a_model_in_mixed_float16_is_scaled(images, tmp_path, with_teacher):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_models.cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    model, quantized = pair(model)
    quantized.save(tmp_path / "model.keras")  # a loaded model has the policy of the process
    seen = Optimizer()
    learn = {"teacher": model} if with_teacher else {"y": images[1], "loss": loss()}
    for network in (quantized, keras.saving.load_model(tmp_path / "model.keras")):
        fine_tune(network, images[0], **learn, epochs=1, callbacks=[seen], verbose=0)
        assert seen.found is keras.optimizers.LossScaleOptimizer


def test_sample_weights_weigh_what_the_teacher_teaches(images):
    model, quantized = pair()
    weights, found = quantized.get_weights(), []
    for weight in (1.0, 3.0):
        quantized.set_weights(weights)
        data = (*images, np.full(len(images[0]), weight))
        found += fine_tune(quantized, data, teacher=model, epochs=1, learning_rate=1e-9, verbose=0).history["loss"]
    np.testing.assert_allclose(found[1], 3 * found[0], rtol=1e-3)


def test_what_cannot_be_fine_tuned_is_refused(images):
    model = small_models.cnn()
    with pytest.raises(ValueError, match="no quantizers"):
        fine_tune(model, images[0], teacher=model)
    with pytest.raises(ValueError, match="'quant_conv/input_quantizer' is not set yet"):
        fine_tune(quantize_model(model), images[0], teacher=model)
    with pytest.raises(ValueError, match="nothing to learn from"):
        fine_tune(pair(model)[1], images[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": -1}, ValueError, "learning_rate must be above 0, got -1"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs must be an int"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be at least 1"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be a keras.optimizers.Optimizer, got 'adam'"),
        ({"features": "conv"}, TypeError, r"Pass \['conv'\]"),
        ({"features": ["conv"], "teacher": None, "loss": "mse"}, ValueError, "features are those of a teacher"),
        ({"loss": "mse"}, ValueError, "A loss needs labels"),
        ({"data": (np.ones((4, 8, 8, 3)), np.ones(4)), "y": np.ones(4)}, ValueError, "y is passed, too"),
        ({"data": np.ones((4, 5, 5, 3), "float32")}, ValueError, "data must hold one array for each input"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(arguments, error, message, images):
    model, quantized = pair()
    before = quantized.get_weights()
    with pytest.raises(error, match=message):
        fine_tune(quantized, **{"data": images[0], "teacher": model, "verbose": 0, **arguments})
    with pytest.raises(ValueError, match="teacher is the quantized model itself"):
        fine_tune(quantized, images[0], teacher=quantized)
    assert all(np.array_equal(a, b) for a, b in zip(before, quantized.get_weights(), strict=True))


@pytest.mark.slow
def test_fashion_mnist_at_3_bits_and_in_onnx_runtime(fashion_mnist, tmp_path):
    pytest.importorskip("onnxruntime")
    from tensorflow_quantization import export_onnx

    (x, y), (x_test, y_test) = fashion_mnist
    x, y, x_test, y_test = x[:4096], y[:4096], x_test[:2048], y_test[:2048]
    inputs = keras.Input(x.shape[1:])
    h = inputs
    for filters in (8, 16):
        h = layers.Conv2D(filters, 3, strides=2, padding="same")(h)
        h = layers.ReLU()(layers.BatchNormalization()(h))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(h)))
    model.compile(keras.optimizers.Adam(3e-3), loss())
    model.fit(x, y, batch_size=64, epochs=4, verbose=0)
    quantized = quantize_model(model, target="onnxruntime", weight_bits=3, weight_ranges="learned")
    calibrate(quantized, x[:256], verbose=0)

    def accuracy(m):
        return (m.predict(x_test, verbose=0).argmax(axis=1) == y_test).mean()

    before = accuracy(quantized)
    fine_tune(quantized, x, teacher=model, epochs=4, batch_size=64, verbose=0)
    assert accuracy(quantized) > max(before, accuracy(model) - 0.02)
    export_onnx(quantized, tmp_path / "model.onnx", verify_with=x_test[:64])


def far_apart(data, x, **arguments):
    """The warnings of a training after which the outputs for the first batch may be further from the teacher's."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    hidden = layers.Dense(128, activation="relu")(layers.Dense(128, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(10)(hidden), name="net")
    quantized = calibrate(quantize_model(model, weight_bits=8), x, verbose=0)
    before = noise(model, quantized, x[:32])
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always", UserWarning)
        fine_tune(quantized, data, teacher=model, verbose=0, **arguments)
    return [str(w.message) for w in given if "away from" in str(w.message)], before, noise(model, quantized, x[:32])


def test_a_training_that_leads_away_from_the_teacher_is_warned_of():
    x = np.random.default_rng(0).normal(size=(32, 64)).astype("float32")
    (said,), before, after = far_apart(x, x, epochs=2, learning_rate=3e-3)
    was, now = (f"{-10 * np.log10(ratio):.1f} dB" for ratio in (before, after))
    assert after > 2 * before
    assert said.startswith(
        "The training moved the outputs of model 'net' away from the teacher's: for the first batch,"
    )
    assert f"was {was} before, and is {now} now. Quantize the float model again" in said
    assert "quantized.set_weights(weights) after it" in said


def test_a_training_that_leads_to_the_teacher_is_not_warned_of():
    x = np.random.default_rng(0).normal(size=(512, 64)).astype("float32")
    said, before, after = far_apart(x, x, epochs=2, learning_rate=1e-5)
    assert not said and after < 2 * before
    # A generator has no first batch to look at again; with labels, the teacher is not all that counts.
    assert not far_apart(((x[:32],) for _ in range(2)), x, epochs=2, steps_per_epoch=1, learning_rate=3e-3)[0]
    assert not far_apart((x[:32], x[:32, :10]), x, loss="mse", learning_rate=3e-3)[0]


@pytest.mark.parametrize("name", ["best.keras", "best.weights.h5"])
def test_checkpoints_are_of_the_quantized_model(images, tmp_path, name):
    model, quantized = pair(weight_bits=4)  # statistics are frozen
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=name.endswith("h5"))
    fine_tune(quantized, images[0], teacher=model, epochs=1, callbacks=[checkpoint], verbose=0)
    if name.endswith("h5"):
        _, loaded = pair(weight_bits=4)
        loaded.load_weights(tmp_path / name)
    else:
        loaded = keras.saving.load_model(tmp_path / name)
        assert loaded.get_layer("bn").trainable
    assert_same_arrays(values(loaded), values(quantized))


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        raise AssertionError("called")


def test_methods_of_the_class_are_not_called_and_a_warning_says_so(images):
    model = small_models.cnn()
    model = OwnLoss(model.inputs, model.outputs)
    quantized = calibrate(quantize_model(model), images[0], verbose=0)
    with pytest.warns(UserWarning, match="does not call the compute_loss of OwnLoss"):
        fine_tune(quantized, *images, loss=loss(), epochs=1, verbose=0)
