"""The quantized model is a Keras model: training, callbacks, precision, freezing, saving."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import assert_same_arrays, randomize, values

from tensorflow_quantization import QuantizationSpec, calibrate, quantize_model
from tensorflow_quantization.model.keras_internals import sublayers

RANGES = ["ema", "last", "learned", "learned_offset"]
ROOT = pathlib.Path(__file__).parents[1]


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model=None, optimizer=None, **arguments):
    """A quantized, compiled classifier."""
    q_model = quantize_model(model or small_models.cnn(), **arguments)
    q_model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), loss(), metrics=["accuracy"])
    return q_model


def ranges_of(q_model):
    return [
        ops.convert_to_numpy(quantizer.range).tolist()
        for layer in sublayers(q_model)
        for quantizer in getattr(layer, "activation_quantizers", [])
    ]


# Training


@pytest.mark.parametrize("ranges", RANGES)
def test_compile_fit_evaluate_predict(ranges, images):
    q_model = compiled(ranges=ranges)
    history = q_model.fit(*images, batch_size=8, epochs=8, validation_split=0.25, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert sorted(history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert np.isfinite(q_model.evaluate(*images, verbose=0)).all()
    assert q_model.predict(images[0], verbose=0).shape == (16, 5)


@pytest.mark.parametrize("ranges", RANGES)
def test_every_trainable_weight_gets_a_gradient(ranges, images):
    q_model = compiled(ranges=ranges, optimizer=keras.optimizers.SGD(0.1))
    if ranges == "learned":
        calibrate(q_model, images[0], verbose=0)
    before = {w.path: np.array(ops.convert_to_numpy(w)) for w in q_model.trainable_weights}
    q_model.fit(*images, verbose=0)
    unmoved = [w.path for w in q_model.trainable_weights if np.array_equal(ops.convert_to_numpy(w), before[w.path])]
    # The bias of a convolution before batch normalization has no effect.
    assert set(unmoved) <= {"quant_conv/conv/bias", "conv/bias"}


@pytest.mark.slow
def test_real_images_train_to_the_accuracy_of_the_float_model(fashion_mnist):
    (x_train, y_train), (x_test, y_test) = fashion_mnist
    x_train, y_train = x_train[:10_000], y_train[:10_000]
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    model.compile(keras.optimizers.Adam(2e-3), loss(), metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=128, epochs=2, verbose=0)
    _, float_accuracy = model.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    q_model = quantize_model(model)
    q_model.fit(x_train, y_train, batch_size=128, epochs=1, verbose=0)
    _, accuracy = q_model.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    assert accuracy > float_accuracy - 0.01


@pytest.mark.slow
def test_compile_configuration_is_carried_so_that_fit_works_at_once(images, cnn):
    cnn.compile(keras.optimizers.Adam(0.01), loss(), metrics=["accuracy"])
    cnn.fit(*images, verbose=0)
    q_model = quantize_model(cnn)
    assert q_model.optimizer is not cnn.optimizer
    assert int(ops.convert_to_numpy(q_model.optimizer.iterations)) == 0
    steps = int(ops.convert_to_numpy(cnn.optimizer.iterations))
    q_model.fit(*images, verbose=0)
    assert "accuracy" in q_model.evaluate(*images, verbose=0, return_dict=True)
    assert int(ops.convert_to_numpy(cnn.optimizer.iterations)) == steps


@pytest.mark.slow
@pytest.mark.parametrize("by_name", [True, False], ids=["dict", "list"])
def test_losses_and_targets_of_several_outputs_by_the_names_of_their_layers(by_name, tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3, name="class")(inputs), layers.Dense(2, name="box")(inputs)])
    model.compile(
        "sgd",
        loss={"class": "mse", "box": "mae"},
        loss_weights={"class": 1.0, "box": 0.5},
        metrics={"class": ["mae"]},
    )
    x, y = np.ones((8, 4), "float32"), [np.ones((8, 3), "float32"), np.ones((8, 2), "float32")]
    y = {"class": y[0], "box": y[1]} if by_name else y
    q_model = quantize_model(model)
    assert q_model.output_names == ["class", "box"]
    q_model.fit(x, y, verbose=0)
    assert "class_mae" in q_model.evaluate(x, y, verbose=0, return_dict=True)
    q_model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras").fit(x, y, verbose=0)


class OwnStep(keras.Model):
    """A training step of its own, and the constructor of `keras.Model`."""

    def train_step(self, data):
        logs = super().train_step(data) if keras.backend.backend() != "jax" else None
        if logs is None:
            raise NotImplementedError
        return {**logs, "own": ops.convert_to_tensor(42.0)}


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="a train_step of JAX has another signature")
def test_custom_train_step_is_kept(images):
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = OwnStep(inputs, layers.Dense(5)(x))
    model.compile("sgd", loss())
    q_model = quantize_model(model)
    assert type(q_model) is OwnStep
    assert q_model.fit(*images, verbose=0).history["own"] == [42.0]


def test_losses_within_wrapped_layers_are_kept(images):
    def model():
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.L2(0.5), name="conv")(inputs)
        x = layers.GlobalAveragePooling2D()(x)
        return randomize(keras.Model(inputs, layers.Dense(5, activity_regularizer=keras.regularizers.L1(2.0))(x)))

    float_model = model()
    float_model.compile("sgd", loss())
    q_model = quantize_model(model())
    q_model.compile("sgd", loss())
    float_model(images[0])
    q_model(images[0])
    assert len(q_model.losses) == len(float_model.losses) == 2
    np.testing.assert_allclose(
        q_model.evaluate(*images, verbose=0), float_model.evaluate(*images, verbose=0), rtol=0.05
    )
    assert np.isfinite(q_model.fit(*images, verbose=0).history["loss"]).all()


def test_wrapped_batch_normalization_follows_its_batches(images, cnn):
    spec = QuantizationSpec()
    spec.add("bn")
    q_model = compiled(cnn, quantization_spec=spec)
    bn = q_model.get_layer("quant_bn").layer
    before = np.array(ops.convert_to_numpy(bn.moving_mean))
    q_model.fit(*images, verbose=0)
    assert np.abs(ops.convert_to_numpy(bn.moving_mean) - before).max() > 0


def test_dropout_is_as_random_as_before(images):
    def model():
        inputs = keras.Input((8, 8, 3))
        x = layers.Dropout(0.5, seed=7)(layers.GlobalAveragePooling2D()(inputs))
        return randomize(keras.Model(inputs, layers.Dense(5)(x)))

    spec = QuantizationSpec()
    spec.add("dense*", quantize_input=False, quantize_weight=False)
    spec.add("global*", quantize_input=False)
    float_model = model()
    q_model = quantize_model(float_model, quantization_spec=spec)
    assert_same_arrays(q_model(images[0], training=True), float_model(images[0], training=True))


def test_masks_pass_through_quantized_layers():
    ids = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True, name="embedding")(ids)
    x = layers.Dense(4, name="dense")(x)
    model = randomize(keras.Model(ids, layers.LSTM(3, name="lstm")(x)))
    q_model = calibrate(quantize_model(model), np.arange(54).reshape(9, 6) % 9, verbose=0)
    assert q_model.get_layer("quant_dense")
    padded = np.array([[3, 4, 5, 0, 0, 0]])
    trimmed = np.array([[3, 4, 5]])
    y = ops.convert_to_numpy(q_model(padded))
    np.testing.assert_allclose(y, ops.convert_to_numpy(model(padded)), atol=0.02)
    other = keras.Model(q_model.inputs, q_model.outputs)
    np.testing.assert_allclose(y, ops.convert_to_numpy(other(np.pad(trimmed, ((0, 0), (0, 3))))), rtol=1e-6)
    without_mask = randomize(keras.Model(ids, layers.LSTM(3)(layers.Dense(4)(layers.Embedding(9, 4)(ids)))))
    assert np.abs(y - ops.convert_to_numpy(without_mask(padded))).max() > 0.02


# Callbacks


def test_model_checkpoint_saves_what_loads(images, tmp_path):
    q_model = compiled()
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    q_model.fit(*images, epochs=2, verbose=0, callbacks=[checkpoint])
    last = keras.models.load_model(tmp_path / "2.keras")
    assert_same_arrays(values(last), values(q_model))
    first = keras.models.load_model(tmp_path / "1.keras")
    assert ranges_of(first) != ranges_of(last)


def test_early_stopping_restores_weights_and_ranges(images):
    q_model = compiled()
    after_epoch = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: after_epoch.append([np.array(w) for w in q_model.get_weights()])
    )
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9, restore_best_weights=True)
    q_model.fit(*images, epochs=5, verbose=0, callbacks=[record, stop])
    assert len(after_epoch) == 2
    assert_same_arrays(q_model.get_weights(), after_epoch[0])


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_backup_and_restore_goes_on_where_it_was_interrupted(images, tmp_path):
    def fit(q_model, *more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        return q_model.fit(*images, epochs=4, shuffle=False, verbose=0, callbacks=[backup, *more])

    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), Interrupt())
    resumed = compiled()
    assert fit(resumed).epoch == [2, 3]
    straight = compiled()
    straight.fit(*images, epochs=4, shuffle=False, verbose=0)
    assert_same_arrays(values(resumed), values(straight))


# Precision


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, images, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model = small_models.cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    q_model = compiled(model)
    half = policy.removeprefix("mixed_")
    assert q_model.get_layer("quant_dense").compute_dtype == half
    assert {keras.backend.standardize_dtype(w.dtype) for w in q_model.weights} == {"float32"}
    history = q_model.fit(*images, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    calibrate(q_model, images[0], verbose=0)
    found = ops.convert_to_numpy(ops.cast(q_model(images[0]), "float32"))
    q_model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("quant_dense").compute_dtype == half
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(loaded(images[0]), "float32")), found)


# Freezing


@pytest.mark.slow
@pytest.mark.parametrize("ranges", RANGES)
def test_frozen_layer_keeps_its_weights_and_ranges(ranges, images):
    q_model = calibrate_softly(compiled(ranges=ranges), images[0])
    q_model.get_layer("quant_conv").trainable = False
    q_model.compile(keras.optimizers.SGD(0.1), loss())
    frozen = q_model.get_layer("quant_conv")
    before, others = values(frozen), values(q_model.get_layer("quant_dense"))
    q_model.fit(images[0] * 3, images[1], verbose=0)
    counts = [v.path for v in frozen.variables if v.path.endswith("batches")]
    for variable, value in zip(frozen.variables, before, strict=True):
        if variable.path not in counts:
            np.testing.assert_array_equal(ops.convert_to_numpy(variable), value, err_msg=variable.path)
    assert not all(map(np.array_equal, others, values(q_model.get_layer("quant_dense"))))


def calibrate_softly(q_model, x):
    """Ranges from data, left free to move."""
    calibrate(q_model, x, verbose=0)
    for layer in q_model.layers:
        if hasattr(layer, "frozen"):
            layer.frozen = False
    return q_model


@pytest.mark.parametrize("ranges", RANGES)
def test_frozen_model_keeps_everything(ranges, images):
    q_model = calibrate_softly(compiled(ranges=ranges), images[0])
    q_model.trainable = False
    assert q_model.trainable_weights == []
    before = ranges_of(q_model)
    q_model(images[0] * 5, training=True)
    assert ranges_of(q_model) == before


def test_layer_frozen_before_quantizing_stays_frozen(images, cnn):
    cnn.get_layer("conv").trainable = False
    q_model = compiled(cnn)
    kernel = np.array(ops.convert_to_numpy(cnn.get_layer("conv").kernel))
    assert not q_model.get_layer("quant_conv").trainable
    q_model.fit(*images, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(q_model.get_layer("quant_conv").layer.kernel), kernel)


# Saving


@pytest.mark.slow
def test_loads_in_a_fresh_process_with_safe_mode_and_no_custom_objects(images, tmp_path):
    q_models = {ranges: compiled(ranges=ranges) for ranges in RANGES}
    np.save(tmp_path / "x.npy", images[0])
    for ranges, q_model in q_models.items():
        q_model.fit(*images, verbose=0)
        q_model.save(tmp_path / f"{ranges}.keras")
    script = (
        "import sys, keras, numpy, tensorflow_quantization\n"
        "x = numpy.load('x.npy')\n"
        "for name in sys.argv[1:]:\n"
        "    numpy.save(name + '.npy', keras.models.load_model(name + '.keras').predict(x, verbose=0))\n"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", script, *RANGES], check=True, cwd=tmp_path, env=environment)
    for ranges, q_model in q_models.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{ranges}.npy"), q_model.predict(images[0], verbose=0))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_file_keeps_variables_and_flags(suffix, calibrated, images, tmp_path):
    q_model = compiled(ranges="learned", weight_bits=4)
    if calibrated:
        calibrate(q_model, images[0], verbose=0)
    q_model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    assert_same_arrays(values(loaded), values(q_model))
    assert loaded.get_layer("quant_conv").get_config()["weight_scheme"]["bits"] == 4
    assert loaded.compiled


def test_calibrated_model_is_still_frozen_after_loading(images, tmp_path):
    q_model = calibrate(compiled(), images[0], verbose=0)
    q_model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = ranges_of(loaded)
    assert before == ranges_of(q_model)
    loaded.fit(images[0] * 3, images[1], verbose=0)
    assert ranges_of(loaded) == before


def test_layers_frozen_one_by_one_stay_so_after_loading(images, tmp_path):
    q_model = compiled()
    q_model.get_layer("quant_conv").frozen = True
    q_model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("quant_conv").input_quantizers[0].frozen
    assert not loaded.get_layer("quant_dense").input_quantizers[0].frozen


def test_weights_alone_are_saved_and_loaded(images, tmp_path):
    q_model = compiled()
    q_model.fit(*images, verbose=0)
    q_model.save_weights(tmp_path / "model.weights.h5")
    other = compiled()
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_arrays(other.predict(images[0], verbose=0), q_model.predict(images[0], verbose=0))
    assert ranges_of(other) == ranges_of(q_model)


def continued_and_straight(model, images, path):
    """The variables after two epochs, with and without saving and loading between them."""

    def fit(model):
        model.fit(*images, batch_size=8, shuffle=False, verbose=0)
        return model

    fit(model).save(path)
    return values(fit(keras.models.load_model(path))), values(fit(model))


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "ranges"), [*(("sgd", r) for r in RANGES), ("adam", "learned")])
def test_training_after_loading_continues_bit_for_bit(ranges, optimizer, images, tmp_path):
    model = small_models.cnn()
    model.compile(optimizer, loss())
    q_model = quantize_model(model, ranges=ranges)
    if not all(map(np.array_equal, *continued_and_straight(model, images, tmp_path / "float.keras"))):
        pytest.skip("float training does not continue bit for bit either")
    assert_same_arrays(*continued_and_straight(q_model, images, tmp_path / "model.keras"))


def test_copies_by_clone_and_config_are_independent(images):
    q_model = calibrate(compiled(), images[0], verbose=0)
    clone = keras.models.clone_model(q_model)
    clone.set_weights(q_model.get_weights())
    assert_same_arrays(clone.predict(images[0], verbose=0), q_model.predict(images[0], verbose=0))
    assert not {id(w) for w in clone.weights} & {id(w) for w in q_model.weights}


# Pictures


def test_summary_shows_wrapped_layers():
    lines = []
    quantize_model(small_models.cnn()).summary(print_fn=lines.append)
    text = "\n".join(lines)
    for name in ("quant_conv", "Conv2DQuantizeWrapper", "quant_dense", "relu"):
        assert name in text


def test_plot_model(tmp_path):
    try:
        keras.utils.plot_model(quantize_model(small_models.residual()), tmp_path / "model.png", show_shapes=True)
    except ImportError as error:
        pytest.skip(f"pydot or Graphviz is not installed: {error}")
    assert (tmp_path / "model.png").stat().st_size > 0


def test_model_as_a_layer_of_another(images):
    q_model = compiled()
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, layers.Softmax()(q_model(inputs)))
    outer.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    outer.fit(*images, verbose=0)
    assert all(range_ != [-6.0, 6.0] for range_ in ranges_of(outer))
