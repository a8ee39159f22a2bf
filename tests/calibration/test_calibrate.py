import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import assert_same_arrays, data_for, randomize, values

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.calibration import ESTIMATORS, MinMax, Percentile
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer


def quantizers_of(model):
    return [layer for layer in sublayers(model) if isinstance(layer, ActivationQuantizer)]


def ranges_of(model):
    return {q.path: ops.convert_to_numpy(q.range).tolist() for q in quantizers_of(model)}


def dense(**arguments):
    """One quantized Dense: its input is the data itself."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="dense")(inputs))
    return quantize_model(randomize(model), **arguments)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(70, 4)).astype("float32")


def test_range_is_that_of_the_data(x):
    model = dense()
    assert calibrate(model, x, verbose=0) is model
    (quantizer,) = quantizers_of(model)
    np.testing.assert_allclose(ops.convert_to_numpy(quantizer.range), [x.min(), x.max()])
    assert quantizer.seen
    assert quantizer.frozen


@pytest.mark.parametrize("method", ESTIMATORS)
def test_quantizers_see_what_flows_in_inference_with_quantized_weights_only(method, images, cnn):
    q_model = quantize_model(cnn)
    calibrate(q_model, images[0], method=method, verbose=0)
    float_dense = keras.Model(cnn.inputs, cnn.get_layer("dense").input)
    quantized_kernel = ops.convert_to_numpy(
        q_model.get_layer("quant_conv").weight_quantizers["kernel"](ops.convert_to_tensor(cnn.get_layer("conv").kernel))
    )
    cnn.get_layer("conv").kernel.assign(quantized_kernel)
    expected = ops.convert_to_numpy(float_dense(images[0]))
    low, high = ops.convert_to_numpy(q_model.get_layer("quant_dense").input_quantizers[0].range)
    assert low >= expected.min() - 1e-4
    assert high <= expected.max() + 1e-4
    if method == "minmax":
        np.testing.assert_allclose([low, high], [expected.min(), expected.max()], rtol=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"method": "max"}])
def test_min_max_is_the_default_and_has_an_older_name(arguments):
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    (quantizer,) = quantizers_of(calibrate(dense(), x, **arguments, verbose=0))
    np.testing.assert_allclose(ops.convert_to_numpy(quantizer.range), [x.min(), x.max()])


@pytest.mark.parametrize("method", sorted(ESTIMATORS.keys() - {"entropy"}))  # which clips a few hundred values
def test_calibrated_int8_model_is_close_to_the_float_one(method, images, cnn):
    q_model = quantize_model(cnn)
    expected = cnn.predict(images[0], verbose=0)
    before = np.abs(q_model.predict(images[0], verbose=0) - expected).max()
    calibrate(q_model, images[0], method=method, verbose=0)
    after = np.abs(q_model.predict(images[0], verbose=0) - expected).max()
    assert after < 0.05 * np.abs(expected).max()
    assert after <= before


@pytest.mark.parametrize("method", ESTIMATORS)
def test_shared_range_is_that_of_the_tensor_that_has_it(method, images):
    inputs = keras.Input((8, 8, 3))
    before, after = [
        quantize_model(keras.Model(inputs, layers.AveragePooling2D(2)(inputs)), target=target)
        for target in ("onnxruntime", "litert")
    ]
    for model in (before, after):
        calibrate(model, images[0], method=method, verbose=0)
    alone, (first, second) = quantizers_of(before), quantizers_of(after)
    if method != "mse":  # which heeds the scheme
        assert_same_arrays(first.range, alone[0].range)
    assert second.range is first.range
    assert first.seen and first.frozen and second.frozen


def test_nothing_but_the_ranges_changes(images, cnn):
    q_model = quantize_model(cnn)
    others = [w for w in q_model.weights if "quantizer" not in w.path]
    before = [np.array(ops.convert_to_numpy(w)) for w in others]
    calibrate(q_model, images[0], verbose=0)
    assert_same_arrays(others, before)


def test_training_keeps_calibrated_ranges(images, cnn):
    cnn.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    q_model = calibrate(quantize_model(cnn), images[0], verbose=0)
    before = ranges_of(q_model)
    q_model.fit(*images, verbose=0)
    assert ranges_of(q_model) == before


def test_learned_ranges_go_on_learning(images, cnn):
    q_model = calibrate(quantize_model(cnn, ranges="learned"), images[0], verbose=0)
    assert not any(q.frozen for q in quantizers_of(q_model))
    scales = [q.parameters()[0] for q in quantizers_of(q_model)]
    q_model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    q_model.fit(*images, verbose=0)
    moved = [abs(q.parameters()[0] / scale - 1) for q, scale in zip(quantizers_of(q_model), scales, strict=True)]
    assert min(moved) > 0
    assert max(moved) < 0.5


# Forms of data


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return self.x[index * 10 : (index + 1) * 10]


def as_tf_dataset(x):
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(x).batch(16)


def as_torch_loader(x):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x)), batch_size=16)


FORMS = {
    "array": lambda x: x,
    "generator of batches": lambda x: ((x[i : i + 10],) for i in range(0, 70, 10)),
    "generator of pairs": lambda x: ((x[i : i + 10], np.zeros(10)) for i in range(0, 70, 10)),
    "generator with weights": lambda x: ((x[i : i + 10], np.zeros(10), np.ones(10)) for i in range(0, 70, 10)),
    "generator of arrays": lambda x: (x[i : i + 10] for i in range(0, 70, 10)),
    "list of batches": lambda x: [x[i : i + 10] for i in range(0, 70, 10)],
    "pair": lambda x: (x, np.zeros(70)),
    "PyDataset": Batches,
    "tf.data": as_tf_dataset,
    "torch DataLoader": as_torch_loader,
}


@pytest.mark.parametrize("form", FORMS)
def test_data_in_any_form_that_predict_takes(form, x):
    model = calibrate(dense(), FORMS[form](x), verbose=0)
    (range_,) = ranges_of(model).values()
    np.testing.assert_allclose(range_, [x.min(), x.max()])


@pytest.mark.parametrize("form", ["samples of tf.data", "one sample", "another shape"])
def test_data_without_a_batch_or_of_another_shape_is_refused(images, cnn, form):
    q_model = quantize_model(cnn)
    before = ranges_of(q_model)
    data = {"one sample": images[0][0], "another shape": images[0][..., :1]}.get(form)
    if data is None:
        data = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(images[0])
    message = r"image \(None, 8, 8, 3\)\), got shapes.*" + (
        "8, 8, 1" if form == "another shape" else r"forget \.batch\(\)"
    )
    with pytest.raises(ValueError, match=message):
        calibrate(q_model, data, verbose=0)
    assert ranges_of(q_model) == before


def test_a_model_with_a_fixed_batch_size_takes_any_number_of_batches():
    inputs = keras.Input(batch_shape=(1, 4))
    model = quantize_model(randomize(keras.Model(inputs, layers.Dense(3)(inputs))))
    x = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    (range_,) = ranges_of(calibrate(model, x, verbose=0)).values()
    np.testing.assert_allclose(range_, [x.min(), x.max()])


def test_a_predict_step_of_the_user_gets_its_data_as_it_is(x):
    class Own(keras.Model):
        def predict_step(self, *args):
            data = keras.utils.unpack_x_y_sample_weight(args[-1])[0]
            return self(data["x"] * 2, training=False)

    inputs = keras.Input((4,))
    if keras.backend.backend() == "jax":
        pytest.skip("predict_step has other arguments on JAX")
    model = quantize_model(randomize(Own(inputs, layers.Dense(3)(inputs))))
    if type(model).predict_step is keras.Model.predict_step:
        model.__class__ = Own
    (range_,) = ranges_of(calibrate(model, {"x": x}, verbose=0)).values()
    np.testing.assert_allclose(range_, [2 * x.min(), 2 * x.max()], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_models_of_any_structure(name):
    q_model = quantize_model(small_models.BUILDERS[name]())
    calibrate(q_model, data_for(small_models.BUILDERS[name]()), verbose=0)
    assert all(q.seen and q.frozen for q in quantizers_of(q_model))


def test_steps_limit_the_batches(x):
    model = calibrate(dense(), x, steps=2, batch_size=5, verbose=0)
    (range_,) = ranges_of(model).values()
    np.testing.assert_allclose(range_, [x[:10].min(), x[:10].max()])


def test_steps_end_a_generator_that_does_not(x):
    def endless():
        while True:
            yield (x,)

    calibrate(dense(), endless(), steps=3, verbose=0)


def test_more_steps_than_batches_take_all(x):
    calibrate(dense(), x, steps=1000, verbose=0)


def test_progress_bar_counts_batches(x, capsys):
    calibrate(dense(), x, batch_size=10)
    assert "7/7" in capsys.readouterr().out
    calibrate(dense(), x, verbose=0)
    assert capsys.readouterr().out == ""


def test_method_may_be_a_function_that_makes_an_estimator(x):
    x = np.concatenate([x, np.full((1, 4), 100.0, "float32")])
    model = calibrate(dense(), x, method=lambda: Percentile(95), verbose=0)
    ((_, high),) = ranges_of(model).values()
    assert high < 10
    calibrate(model, x, method=MinMax, verbose=0)
    assert next(iter(ranges_of(model).values()))[1] == 100


def test_estimators_get_batches_one_at_a_time(x):
    sizes = []

    class Spy(MinMax):
        def update(self, x):
            sizes.append(len(x))
            super().update(x)

    calibrate(dense(), x, method=Spy, batch_size=32, verbose=0)
    assert sizes == [32, 32, 6]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, x):
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, dtype=policy, name="first")(inputs)
    model = randomize(keras.Model(inputs, layers.Dense(3, dtype=policy, name="second")(hidden)))
    calibrate(quantize_model(model), x, verbose=0)


def test_model_predicts_and_trains_with_its_new_ranges_after_it_was_compiled_before(images, cnn):
    cnn.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    q_model = quantize_model(cnn)
    stale = q_model.predict(images[0], verbose=0)
    q_model.evaluate(*images, verbose=0)
    calibrate(q_model, images[0] * 100, verbose=0)
    assert not q_model.run_eagerly
    assert np.abs(q_model.predict(images[0], verbose=0) - stale).max() > 1e-3
    np.testing.assert_allclose(
        q_model.predict(images[0], verbose=0), ops.convert_to_numpy(q_model(images[0])), rtol=1e-4, atol=1e-4
    )


# Bad input


def broken(x):
    x = x.copy()
    x[40, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (broken, {}, "got values that are NaN or infinite"),
        (lambda x: x * np.float32(np.inf), {}, "got values that are NaN or infinite"),
        (lambda x: iter(()), {}, None),
        (lambda x: x, {"method": "kl"}, "'percentile', 'mse', 'entropy', 'auto', got 'kl'"),
        (lambda x: x, {"method": "percentil"}, "Did you mean 'percentile'"),
        (lambda x: x, {"steps": 0}, "steps must be at least 1, got 0"),
    ],
    ids=["nan", "infinite", "no data", "method", "misspelt method", "steps"],
)
def test_bad_input_is_refused_and_ranges_stay(x, data, arguments, message):
    model = dense()
    before = values(model)
    with pytest.raises(ValueError, match=message):
        calibrate(model, data(x), verbose=0, **arguments)
    assert_same_arrays(values(model), before)
    (quantizer,) = quantizers_of(model)
    assert quantizer.observer is None
    assert not quantizer.frozen
    assert not model.run_eagerly


def test_model_without_quantizers_is_refused(cnn, images):
    with pytest.raises(ValueError, match=r"'cnn' has no quantizers.*quantize_model"):
        calibrate(cnn, images[0])


def test_what_is_no_model_is_refused(x):
    with pytest.raises(TypeError, match=r"Expected a keras\.Model, got the path 'model'"):
        calibrate("model", x)


@pytest.mark.slow
def test_real_images_from_float_to_int8_without_training(fashion_mnist):
    (x_train, y_train), (x_test, y_test) = fashion_mnist
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(x_train[:20_000], y_train[:20_000], batch_size=128, epochs=1, verbose=0)
    _, float_accuracy = model.evaluate(x_test, y_test, batch_size=500, verbose=0)
    assert float_accuracy > 0.7
    for method in ESTIMATORS:
        q_model = calibrate(quantize_model(model), x_train[:512], method=method, verbose=0)
        _, accuracy = q_model.evaluate(x_test, y_test, batch_size=500, verbose=0)
        assert abs(accuracy - float_accuracy) < 0.01, method


class Picky(layers.Layer):
    def call(self, inputs):
        if keras.ops.max(inputs) > 1:
            raise KeyError("values above 1")
        return inputs


def test_errors_are_in_one_line_without_colours():
    inputs = keras.Input((4,))
    model = quantize_model(keras.Model(inputs, layers.Dense(2)(inputs)))
    with pytest.raises(ValueError, match=r"^'quant_dense\w*/input_quantizer' got values that are NaN .* quantizer\.$"):
        calibrate(model, np.full((1, 4), np.nan), verbose=0)


def test_an_error_of_a_layer_of_the_user_is_in_one_line_and_keeps_its_class():
    class Network(keras.Model):
        def predict_step(self, *arguments):
            return self(Picky()(arguments[-1]))  # on JAX after the state

    inputs = keras.Input((4,))
    model = quantize_model(Network(inputs, layers.Dense(2)(inputs)))
    with pytest.raises(KeyError) as caught:
        calibrate(model, np.full((2, 4), 2.0), verbose=0)
    assert caught.value.args == ("Picky.call(): values above 1",)
