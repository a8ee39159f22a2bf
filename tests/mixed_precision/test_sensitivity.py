import json
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from tensorflow_quantization import QuantizationSpec, sensitivity
from tensorflow_quantization.mixed_precision import Precision


def chain(depth=4):
    inputs = keras.Input((8, 8, 3), name="image")
    x = inputs
    for index in range(depth):
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name=f"conv{index}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="scores")(x), name="chain")


@pytest.mark.parametrize("guilty", ["conv0", "conv2", "scores"])
def test_a_layer_that_was_made_sensitive_is_first(guilty, images):
    """One weight of each channel is large, and multiplies what is zero: it only widens the steps of the others."""
    model = chain()
    kernel = model.get_layer(guilty).kernel
    before = model.layers[model.layers.index(model.get_layer(guilty)) - 1]
    data = images[0].copy()
    if guilty == "conv0":
        data[..., 0] = 0
    elif guilty == "conv2":
        before.kernel.assign(np.concatenate([np.zeros((3, 3, 6, 1)), np.asarray(before.kernel.numpy())[..., 1:]], -1))
    else:
        before = model.get_layer("conv3")
        before.kernel.assign(np.concatenate([np.zeros((3, 3, 6, 1)), np.asarray(before.kernel.numpy())[..., 1:]], -1))
    value = keras.ops.convert_to_numpy(kernel.value).copy()
    value[..., 0, :] = 20 * np.abs(value).max()
    kernel.assign(value)
    result = sensitivity(model, data, target="onnxruntime")
    assert result.ranked()[0].layer == guilty
    assert str(result).splitlines()[4].startswith(guilty)


def test_fewer_bits_hurt_more(images):
    for layer in sensitivity(chain(1), images[0], weight_bits=(8, 4), activation_bits=(8, 4)):
        assert layer.noise[Precision(4, 8)] > layer.noise[Precision(8, 8)] > 0
        assert layer.noise[Precision(8, 4)] > layer.noise[Precision(8, 8)]


def test_the_same_each_time_and_with_labels_or_batches(cnn, images):
    x, y = images
    expected = sensitivity(cnn, x).to_dict()
    weights = [np.asarray(w) for w in cnn.get_weights()]
    assert sensitivity(cnn, (x, y)).to_dict() == expected
    assert sensitivity(cnn, ((x, y) for _ in range(1))).to_dict() == expected
    assert all(np.array_equal(a, b) for a, b in zip(weights, cnn.get_weights(), strict=True))


def test_reports(cnn, images):
    result = sensitivity(cnn, images[0])
    assert len(result) == 2
    assert json.loads(json.dumps(result.to_dict()))["layers"][0]["weights"] == 108
    first = result.ranked()[0]
    assert result.to_markdown().splitlines()[2].startswith(f"| {first.layer} | {first.class_name} |")
    assert f"<td>{first.layer}</td>" in result._repr_html_()
    axes = result.plot(pytest.importorskip("matplotlib.pyplot").figure().subplots())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv", "dense"]


def test_an_unknown_layer_names_the_closest(cnn, images):
    result = sensitivity(cnn, images[0], weight_bits=4)
    with pytest.raises(KeyError, match=r"no layer 'cnv'.*Did you mean 'conv'"):
        result["cnv"]
    with pytest.raises(TypeError, match="have paths"):
        result[0]


def test_layers_of_the_spec_have_no_row(cnn, images):
    spec = QuantizationSpec()
    spec.add("Dense", is_keras_class=True, quantize_input=False, quantize_weight=False)
    assert [layer.layer for layer in sensitivity(cnn, images[0], quantization_spec=spec)] == ["conv"]


def test_values_that_are_not_finite_are_errors(cnn, images):
    kernel = cnn.get_layer("dense").kernel
    kernel.assign(np.where(np.arange(kernel.shape[1]) == 0, 1e38, kernel.numpy()))
    with pytest.raises(ValueError, match="NaN or infinite"):
        sensitivity(cnn, 1e3 * images[0])


def test_litert_has_8_bits_only(cnn, images):
    assert all(set(layer.snr) == {"W8A8"} for layer in sensitivity(cnn, images[0], target="litert"))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"samples": 0}, ValueError, "samples must be at least 1"),
        ({"weight_bits": 9}, ValueError, "weight_bits must be an integer from 2 to 8"),
        ({"target": "litert", "weight_bits": 4}, ValueError, "computes in 8 bits only"),
        ({"bits": 4}, TypeError, "Did you mean 'weight_bits'"),
        ({"target": "onnxruntim"}, ValueError, "Did you mean 'onnxruntime'"),
        ({"data": np.zeros((4, 7, 7, 3))}, ValueError, "image"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(cnn, images, arguments, error, message):
    with pytest.raises(error, match=message):
        sensitivity(**{"model": cnn, "data": images[0], **arguments})


def test_what_is_wrong_with_a_spec_is_said_once(images):
    spec = QuantizationSpec()
    spec.add("conv9")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sensitivity(chain(2), images[0], quantization_spec=spec)
    assert len([w for w in caught if "'conv9'" in str(w.message)]) == 1


def test_of_classes_the_scores_that_they_were_found_in_are_measured(cnn, images):
    classes = keras.Model(cnn.inputs, keras.ops.argmax(cnn.outputs[0], axis=-1))
    found, expected = (sensitivity(m, images[0], weight_bits=4) for m in (classes, cnn))
    assert [x.noise for x in found] == [x.noise for x in expected]
