import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import assert_same_arrays, randomize, values

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.training import ReestimateBatchNormalization, reestimate_batch_normalization


def two_normalizations(**arguments):
    inputs = keras.Input((4,))
    x = layers.BatchNormalization(name="first", **arguments)(inputs)
    x = layers.Dense(3, name="dense")(layers.ReLU()(x))
    return randomize(keras.Model(inputs, layers.BatchNormalization(name="second")(x)))


def statistics(layer):
    return [ops.convert_to_numpy(v).astype("float64") for v in (layer.moving_mean, layer.moving_variance)]


def test_statistics_are_the_moments_over_all_batches():
    model = two_normalizations()
    batches = [np.random.default_rng(i).normal(i, 1 + i, (5 - i, 4)).astype("float32") for i in range(3)]
    first, dense = model.get_layer("first"), model.get_layer("dense")
    gamma, beta, kernel, bias = (
        ops.convert_to_numpy(v).astype("float64") for v in (first.gamma, first.beta, dense.kernel, dense.bias)
    )
    hidden = []
    for x in batches:  # the second layer sees what the first returns for the statistics of the batch
        normalized = (x - x.mean(0)) / np.sqrt(x.var(0, dtype="float64") + first.epsilon) * gamma + beta
        hidden.append(np.maximum(normalized, 0) @ kernel + bias)
    assert reestimate_batch_normalization(model, batches) is model
    for layer, inputs in ((first, batches), (model.get_layer("second"), hidden)):
        rows = np.concatenate(inputs).astype("float64")
        np.testing.assert_allclose(statistics(layer)[0], rows.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(statistics(layer)[1], rows.var(0), rtol=1e-4, atol=1e-5)


def test_of_a_quantized_input_the_quantized_values_count(images):
    model = small_models.cnn()
    from quantized_models import spec_of

    quantized = calibrate(quantize_model(model, quantization_spec=spec_of("bn")), images[0], verbose=0)
    wrapper = quantized.get_layer("quant_bn")
    reestimate_batch_normalization(quantized, images[0])
    conv = keras.Model(quantized.input, quantized.get_layer("quant_conv").output).predict(images[0], verbose=0)
    (quantizer,) = wrapper.input_quantizers
    seen = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(conv))).reshape(-1, 4).astype("float64")
    np.testing.assert_allclose(statistics(wrapper.layer)[0], seen.mean(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(statistics(wrapper.layer)[1], seen.var(0), rtol=1e-3, atol=1e-4)


def test_only_statistics_change(images):
    quantized = calibrate(quantize_model(small_models.residual()), images[0], verbose=0)
    before = {v.path: np.array(ops.convert_to_numpy(v)) for v in quantized.variables}
    reestimate_batch_normalization(quantized, images[0])
    changed = {v.path.split("/")[-1] for v in quantized.variables if (ops.convert_to_numpy(v) != before[v.path]).any()}
    assert changed == {"moving_mean", "moving_variance"}


@pytest.mark.parametrize("make", [lambda: two_normalizations(trainable=False), small_models.nested])
def test_layers_that_training_leaves_alone_keep_their_statistics(make):
    model = make()
    before = [statistics(layer) for layer in (model.layers if "first" in str(model.layers[1].name) else [])[1:2]]
    all_before = values(model)
    reestimate_batch_normalization(model, small_models.data_for(model))
    if before:
        assert_same_arrays(statistics(model.get_layer("first")), before[0])
    else:  # the backbone is called with training=False
        assert_same_arrays(values(model), all_before)


@pytest.mark.parametrize(("data", "message"), [([], "holds no data|no batch|must hold"), ("nan", "'first' is NaN")])
def test_data_that_is_empty_or_nan_leaves_the_model_as_it_was(data, message):
    model = two_normalizations()
    before = values(model)
    if data == "nan":
        data = [np.ones((3, 4), "float32"), np.full((3, 4), np.nan, "float32")]
    with pytest.raises(ValueError, match=message):
        reestimate_batch_normalization(model, data)
    assert_same_arrays(values(model), before)


def test_callback_estimates_at_the_end_of_training(images):
    quantized = quantize_model(small_models.cnn())
    quantized.compile("sgd", "sparse_categorical_crossentropy")
    quantized.fit(*images, verbose=0, callbacks=[ReestimateBatchNormalization(images[0])])
    got = statistics(quantized.get_layer("bn"))
    reestimate_batch_normalization(quantized, images[0])
    assert_same_arrays(statistics(quantized.get_layer("bn")), got)
