import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import assert_same_arrays, randomize, values

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.training import distill


def pair(model=None, **arguments):
    """A float model, and its calibrated quantized form."""
    model = model or small_models.residual()
    return model, calibrate(quantize_model(model, **arguments), small_models.data_for(model), verbose=0)


def ratio(expected, got):
    expected, got = (np.asarray(a, "float64") for a in (expected, got))
    return ((got - expected) ** 2).sum() / (expected**2).sum()


def loss_of(distilled, x):
    distilled.compile("sgd")
    return distilled.evaluate(x, batch_size=len(x), verbose=0)


def layer_outputs(model, name, x):
    return keras.Model(model.input, model.get_layer(name).output).predict(x, verbose=0)


def test_loss_is_noise_over_signal_of_outputs(images):
    model, quantized = pair(weight_bits=3)
    expected = ratio(model.predict(images[0], verbose=0), quantized.predict(images[0], verbose=0))
    np.testing.assert_allclose(loss_of(distill(quantized, model, weight=2.0), images[0]), 2 * expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("features", [["conv", "relu"], {"quant_conv": "conv", "relu": "relu"}])
def test_features_are_compared_by_name(images, features):
    x = images[0]
    model, quantized = pair(weight_bits=3)
    wanted = [ratio(layer_outputs(model, name, x), layer_outputs(quantized, prefix + name, x)) for prefix, name in
              (("quant_", "conv"), ("", "relu"))]  # fmt: skip
    distilled = distill(quantized, model, features=features, weight=0.0, feature_weight=3.0)
    np.testing.assert_allclose(loss_of(distilled, x), 3 * np.mean(wanted), rtol=1e-4)


@pytest.mark.slow
def test_any_loss_gets_teacher_and_student(images):
    model, quantized = pair(weight_bits=3)
    expected, got = (m.predict(images[0], verbose=0) for m in (model, quantized))
    for loss in ("mae", keras.losses.MeanAbsoluteError(), lambda t, s: ops.abs(t - s)):
        np.testing.assert_allclose(
            loss_of(distill(quantized, model, loss=loss), images[0]), np.abs(expected - got).mean(), rtol=1e-4
        )
    one_sided = distill(quantized, model, loss=lambda t, s: 2 * t - s)
    np.testing.assert_allclose(loss_of(one_sided, images[0]), (2 * expected - got).mean(), rtol=1e-3, atol=1e-5)


def test_training_changes_the_student_and_neither_teacher_nor_how_they_are_compiled(images):
    model, quantized = pair(weight_bits=3)
    before = values(model)
    distilled = distill(quantized, model)
    distilled.compile(keras.optimizers.SGD(0.01))
    history = distilled.fit(images[0], epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert_same_arrays(values(model), before)
    assert all(layer.trainable for layer in model.layers)
    assert not quantized.compiled
    assert {id(v) for v in distilled.trainable_variables} == {id(v) for v in quantized.trainable_variables}
    np.testing.assert_array_equal(distilled.predict(images[0], verbose=0), quantized.predict(images[0], verbose=0))


def test_labels_and_metrics_add_to_the_loss(images):
    x, y = images
    model, quantized = pair()
    distilled = distill(quantized, model)
    distilled.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    logs = distilled.evaluate(x, y, batch_size=len(x), return_dict=True, verbose=0)
    logits = quantized.predict(x, verbose=0).astype("float64")
    of_labels = -np.log(np.exp(logits)[range(len(y)), y] / np.exp(logits).sum(axis=1)).mean()
    np.testing.assert_allclose(logs["loss"], of_labels + ratio(model.predict(x, verbose=0), logits), rtol=1e-4)
    np.testing.assert_allclose(logs["accuracy"], (logits.argmax(axis=1) == y).mean(), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("build", [small_models.sequential, small_models.siamese, small_models.dict_in_and_out,
                                   small_models.nested, small_models.subclassed])  # fmt: skip
def test_any_structure_of_inputs_and_outputs(build):
    model = build()
    model, quantized = pair(model, weight_bits=4)
    x = small_models.data_for(model)
    distilled = distill(quantized, model)
    distilled.compile(keras.optimizers.SGD(1e-3))
    distilled.fit(x, verbose=0)
    assert [a.shape for a in keras.tree.flatten(distilled.predict(x, verbose=0))] == [
        a.shape for a in keras.tree.flatten(model.predict(x, verbose=0))
    ]


def test_a_teacher_of_other_outputs_is_refused():
    _, quantized = pair()
    inputs = keras.Input((8, 8, 3))
    other = randomize(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs))))
    with pytest.raises(ValueError, match=r"student have shapes \[\(None, 5\)\], .* teacher \[\(None, 3\)"):
        distill(quantized, other)


def test_a_teacher_of_other_inputs_is_refused():
    def model(*sizes):
        inputs = [keras.Input(size) for size in sizes]
        return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([layers.Flatten()(x) for x in inputs])))

    student = quantize_model(model((4,), (3,)))
    for teacher in (model((4,), (5,)), model((4,), (3, 1)), model((7,), (1,), (2,))):
        with pytest.raises(
            ValueError, match=r"student has inputs of shapes \[\(None, 4\), \(None, 3\)\], and the teacher"
        ):
            distill(student, teacher)


def test_an_unknown_or_shared_feature_is_refused():
    model, quantized = pair()
    with pytest.raises(ValueError, match=r"has no layer 'rely'. Did you mean 'relu'\?"):
        distill(quantized, model, features=["rely"])
    model, quantized = pair(small_models.shared_layer())
    with pytest.raises(ValueError, match="called several times"):
        distill(quantized, model, features=["shared"])


def test_a_training_resumes_with_the_state_of_the_optimizer(images, tmp_path):
    model, quantized = pair(weight_bits=4)
    weights = tmp_path / "m.weights.h5"
    distilled = distill(quantized, model)
    distilled.save_weights(weights)
    distilled.load_weights(weights)
    distilled.compile(keras.optimizers.Adam(1e-3))
    distilled.fit(images[0], batch_size=8, verbose=0)
    distilled.save_weights(weights)
    _, other = pair(model, weight_bits=4)
    resumed = distill(other, model)
    resumed.compile(keras.optimizers.Adam(1e-3))
    resumed.optimizer.build(resumed.trainable_variables)
    resumed.load_weights(weights)
    assert int(resumed.optimizer.iterations) == int(distilled.optimizer.iterations) > 0
    assert_same_arrays(values(resumed.optimizer), values(distilled.optimizer))
    assert_same_arrays(values(other), values(quantized))


def rectified(scale=1.0):
    """A network whose outputs are zero for inputs of zero."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, activation="relu")(inputs)
    outputs = layers.ReLU()(layers.Dense(3, bias_initializer=keras.initializers.Constant(-1e-3), name="out")(hidden))
    return keras.Model(inputs, layers.Rescaling(scale)(outputs))


def vectors():
    """4 batches of 8; the first is zero."""
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    x[:8] = 0
    return x


def test_a_batch_without_a_signal_counts_by_the_signal_of_the_data():
    model, x = rectified(), vectors()
    _, quantized = pair(model, weight_bits=3)
    quantized.get_layer("quant_out").layer.bias.assign([0.1, 0.1, 0.1])  # noise in the first batch, too
    expected, got = (m.predict(x, verbose=0) for m in (model, quantized))
    assert not expected[:8].any() and expected[8:].any() and got[:8].all()
    distilled = distill(quantized, model)
    distilled.compile(keras.optimizers.SGD(0.0))
    (loss,) = distilled.fit(x, batch_size=8, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(loss, ratio(expected, got), rtol=0.5)  # the means of batches so far differ
    (signal,) = distilled._signals["outputs"]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(signal.power), (expected**2).mean(), rtol=1e-5)
    assert loss_of(distill(quantized, model), x[:8]) == 0  # no batch had a signal: the unit is unknown


def test_loss_does_not_depend_on_the_unit_of_outputs():
    losses = []
    for model in (rectified(), rectified(1e-9)):
        _, quantized = pair(model, weight_bits=3)
        losses.append(loss_of(distill(quantized, model), vectors()))
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert losses[0] > 1e-3


def test_sample_weights_and_class_weights_multiply_the_losses():
    model, x = rectified(), vectors()
    _, quantized = pair(model, weight_bits=3)
    expected, got = (m.predict(x, verbose=0) for m in (model, quantized))
    weight, labels = np.linspace(0, 2, len(x)).astype("float32"), np.arange(len(x)) % 2
    power = (expected**2).mean()
    for loss, unit in ((None, power), ("mse", 1.0), (keras.losses.MeanSquaredError(), 1.0)):
        distilled = distill(quantized, model, loss=loss)
        distilled.compile(keras.optimizers.SGD(0.0))
        for weights, factor in (
            ({"sample_weight": weight}, weight),
            ({"class_weight": {0: 0.25, 1: 3.0}}, np.where(labels, 3.0, 0.25)),
        ):
            (found,) = distilled.fit(x, labels, batch_size=len(x), verbose=0, **weights).history["loss"]
            wanted = (factor[:, None] * (got - expected) ** 2).mean() / unit
            np.testing.assert_allclose(found, wanted, rtol=1e-2)  # biases are rounded at inference only


def test_features_have_the_mean_weight_of_the_outputs():
    model = small_models.dict_in_and_out()
    _, quantized = pair(model, weight_bits=3)
    x = small_models.data_for(model)
    y = {key: np.zeros_like(value) for key, value in model.predict(x, verbose=0).items()}
    weights = {key: np.full(len(value), factor) for (key, value), factor in zip(y.items(), (1.0, 3.0), strict=True)}
    expected, got = (m.predict(x, verbose=0) for m in (model, quantized))
    of_outputs = np.mean([f * ratio(expected[k], got[k]) for k, f in zip(y, (1.0, 3.0), strict=True)])
    name = next(layer.name for layer in model.layers if layer.weights)
    layer = name if name in {x.name for x in quantized.layers} else f"quant_{name}"
    of_features = 2.0 * ratio(layer_outputs(model, name, x), layer_outputs(quantized, layer, x))
    distilled = distill(quantized, model, features=[name])
    distilled.compile("sgd")
    loss = distilled.evaluate(x, y, sample_weight=weights, batch_size=64, verbose=0)
    np.testing.assert_allclose(loss, of_outputs + of_features, rtol=1e-4)


def test_a_loss_of_one_number_cannot_weigh_samples():
    model, x = rectified(), vectors()
    _, quantized = pair(model, weight_bits=3)
    distilled = distill(quantized, model, loss=lambda t, s: ops.mean(ops.abs(t - s)))
    distilled.compile("sgd")
    distilled.evaluate(x, verbose=0)
    with pytest.raises(ValueError, match="Let the loss return one value for each sample"):
        distilled.evaluate(x, x, sample_weight=np.ones(len(x)), verbose=0)


def test_the_loss_of_a_model_in_mixed_float16_is_scaled():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = rectified()
    finally:
        keras.config.set_dtype_policy("float32")
    _, quantized = pair(model)
    distilled = distill(quantized, model)
    distilled.compile("adam")
    assert isinstance(distilled.optimizer, keras.optimizers.LossScaleOptimizer)
    assert np.isfinite(distilled.fit(vectors(), verbose=0).history["loss"]).all()
