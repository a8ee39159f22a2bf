import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from small_models import assert_same_arrays, cnn, images, randomize, values

from tensorflow_quantization import calibrate, load_calibration, merge_calibrations, quantize_model, save_calibration
from tensorflow_quantization.calibration import ESTIMATORS, MinMax, Percentile
from tensorflow_quantization.calibration.results import _entry, _estimator
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme

X = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


class OnHost(MinMax):
    """A method that no file knows."""


def make(name="conv", filters=4, **arguments):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(filters, 3, activation="relu", name=name)(inputs)
    return quantize_model(randomize(keras.Model(inputs, layers.Conv2D(4, 3, name="last")(x))), **arguments)


def quantizers_of(model):
    return [layer for layer in sublayers(model) if isinstance(layer, ActivationQuantizer)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ranges.json"


@pytest.mark.parametrize("method", [*ESTIMATORS, lambda: Percentile(99.0), OnHost])
@pytest.mark.parametrize("target", [None, "litert"])
def test_a_loaded_calibration_is_the_saved_one(method, target, path, tmp_path):
    model = calibrate(make(target=target), X, method=method, verbose=0)
    save_calibration(model, path)
    other = make(target=target)
    assert load_calibration(other, path) is other
    assert_same_arrays(values(other), values(model))
    assert all(q.frozen for q in quantizers_of(other))
    save_calibration(other, tmp_path / "again.json")
    if method is not OnHost:
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.json", "ranges.json"]


@pytest.mark.slow
@pytest.mark.parametrize("method", [*ESTIMATORS, lambda: Percentile(99.0)])
def test_parts_merge_to_the_file_of_one_run(method, path, tmp_path):
    scales = np.float32([1, 100, 1e-3, 0, 1, 1, 30, 2]).repeat(8)[:, None, None, None]  # the limits differ
    x = X * scales
    model = calibrate(make(), x, method=method, batch_size=8, verbose=0)
    save_calibration(model, path)
    parts = [tmp_path / f"part{part}.json" for part in range(4)]
    for index, part in enumerate(parts):
        batches = [x[i * 8 : i * 8 + 8] for i in (index, 7 - index)]
        save_calibration(calibrate(make(), batches, method=method, verbose=0), part)
    for order in (parts, parts[::-1]):
        merge_calibrations(order, tmp_path / "merged.json")
        assert (tmp_path / "merged.json").read_bytes() == path.read_bytes()


data = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20)


@given(st.sampled_from(list(ESTIMATORS.values())), data)
@settings(max_examples=30)
def test_statistics_survive_json(estimator, numbers):
    made, scheme = estimator(), QuantizationScheme()
    made.update(np.float32(numbers))
    entry = json.loads(json.dumps(_entry(made, scheme, made.range(scheme))))
    again = _estimator(entry)
    for name, array in made.merged().items():
        np.testing.assert_array_equal(again.merged()[name], array)


def test_the_file_is_a_line_for_each_quantizer(path):
    save_calibration(calibrate(make(), X, method="percentile", verbose=0), path)
    lines = path.read_text().splitlines()
    assert len(lines) == 6 + 2
    (line,) = [line for line in lines if "quant_conv/" in line]
    entry = json.loads("{" + line.rstrip(",") + "}").popitem()[1]
    assert (entry["method"], entry["arguments"]) == ("percentile", {"percentile": 99.99})
    assert entry["statistics"]["low"] == float(X.min())
    assert sum(entry["statistics"]["counts"]["counts"]) == X.size


def test_ranges_that_were_trained_are_saved_without_statistics(path):
    model = calibrate(make(), X, verbose=0)
    quantizers_of(model)[0].set_range(-1, 1)
    save_calibration(model, path)
    methods = [entry["method"] for entry in json.loads(path.read_text())["quantizers"].values()]
    assert sorted(methods, key=str) == [None, "mse"]
    with pytest.raises(ValueError, match=r"has no statistics of 'quant_conv/.*Call save_calibration directly after"):
        merge_calibrations([path], path)
    other = load_calibration(make(), path)
    np.testing.assert_array_equal(ops.convert_to_numpy(quantizers_of(other)[0].range), [-1, 1])


@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_learned_ranges_are_saved_as_training_left_them(target, path):
    model = calibrate(make(ranges="learned_offset", target=target), X, verbose=0)
    for quantizer in quantizers_of(model):
        for weight in quantizer.trainable_weights:
            weight.assign(0.25)
    save_calibration(model, path)
    other = load_calibration(make(ranges="learned_offset", target=target), path)
    for one, two in zip(quantizers_of(model), quantizers_of(other), strict=True):
        for expected, got in zip(one.parameters(), two.parameters(), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make("konv"), "has no range for 'quant_konv/.*Did you mean 'quant_conv/"),
        (lambda: quantize_model(cnn()), "has no range for"),
        (lambda: make(activation_bits=4), "'quant_conv/.* has int4 symmetric, and file .*Calibrate this model"),
    ],
    ids=["name", "model", "bits"],
)
def test_the_file_of_another_model_is_refused(other, message, path):
    save_calibration(calibrate(make(), X, verbose=0), path)
    model = other()
    before = values(model)
    with pytest.raises(ValueError, match=message):
        load_calibration(model, path)
    assert_same_arrays(values(model), before)
    assert not any(q.frozen for q in quantizers_of(model))


def test_a_model_with_other_weights_is_noticed(path, tmp_path, recwarn):
    save_calibration(calibrate(make(), X, verbose=0), path)
    load_calibration(make(), path)
    older = json.loads(path.read_text())
    del older["weights"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    other = make()
    kernel = next(variable for variable in other.weights if "kernel" in variable.name)
    kernel.assign(kernel + 1e-3)
    load_calibration(other, tmp_path / "older.json")
    with pytest.warns(UserWarning, match="ranges of a model with other weights than model"):
        load_calibration(other, path)
    save_calibration(other, tmp_path / "other.json")
    with pytest.raises(ValueError, match="is of a model with other weights than the model of file"):
        merge_calibrations([path, tmp_path / "other.json"], tmp_path / "merged.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "percentile"}, "method 'percentile' in file .*, and 'mse' in file"),
        ({"name": "konv"}, "has no range for 'quant_conv/"),
        ({"activation_bits": 4}, "has scheme"),
    ],
)
def test_parts_that_differ_are_refused(arguments, message, path, tmp_path):
    save_calibration(calibrate(make(), X, verbose=0), path)
    method = arguments.pop("method", "mse")
    save_calibration(calibrate(make(**arguments), X, method=method, verbose=0), tmp_path / "other.json")
    with pytest.raises(ValueError, match=message):
        merge_calibrations([path, tmp_path / "other.json"], tmp_path / "merged.json")
    assert not (tmp_path / "merged.json").exists()


def test_a_model_that_was_not_calibrated_is_refused(path):
    with pytest.raises(ValueError, match=r"has no range from data\. Call calibrate first"):
        save_calibration(make(), path)
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "another"}'])
def test_another_file_is_refused(text, path):
    path.write_text(text)
    with pytest.raises(ValueError, match="is no file of save_calibration"):
        load_calibration(make(), path)


def test_arguments_of_other_types_are_refused(path):
    with pytest.raises(TypeError, match="path must be a path"):
        save_calibration(make(), 3)
    with pytest.raises(TypeError, match="path must be a path"):
        load_calibration(make(), None)
    with pytest.raises(TypeError, match="must be a list of paths"):
        merge_calibrations("a.json", path)
    with pytest.raises(ValueError, match="paths is empty"):
        merge_calibrations([], path)


def test_training_goes_on_after_loading(path):
    model = calibrate(make(ranges="learned"), images()[0], verbose=0)
    save_calibration(model, path)
    other = load_calibration(make(ranges="learned"), path)
    assert not any(q.frozen for q in quantizers_of(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"high": float("nan")}, "is not finite"),
        ({"high": 1e40}, "is not finite"),
        ({"low": None}, "is not finite"),
        ({"high": "1"}, "is not finite"),
        ({"high": True}, "is not finite"),
        ({"low": 9.0, "high": 1.0}, "begins at 9.0 and ends at 1.0"),
        ({"scheme": None}, "damaged"),
        ({"method": "nothing"}, "KeyError: 'nothing'"),
        ({"arguments": {"zz": 1}}, "unexpected keyword"),
        ({"statistics": [1]}, "damaged"),
        ({"statistics": {"low": 0.0}}, "damaged"),
        ({"statistics": {"low": float("nan"), "high": 1.0}}, "damaged"),
        ({"statistics": {"low": 2.0, "high": 1.0}}, "begins at 2.0 and ends at 1.0"),
    ],
)
def test_a_damaged_entry_is_an_error_that_names_the_quantizer(change, message, path, tmp_path):
    model = calibrate(make(), X, method="minmax", verbose=0)
    save_calibration(model, path)
    content = json.loads(path.read_text())
    name = next(iter(content["quantizers"]))
    content["quantizers"][name].update(change)
    path.write_text(json.dumps(content))
    before = values(model)
    for read in (lambda: load_calibration(model, path), lambda: merge_calibrations([path], tmp_path / "merged.json")):
        with pytest.raises(ValueError, match="is damaged") as error:
            read()
        assert message in str(error.value)
    assert_same_arrays(values(model), before)
    assert not (tmp_path / "merged.json").exists()


@pytest.mark.parametrize("quantizers", [None, [1], {"x": 3}, {"x": {}}])
def test_other_content_is_an_error(quantizers, path):
    save_calibration(calibrate(make(), X, verbose=0), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantizers": quantizers}))
    with pytest.raises(ValueError, match="is no file of save_calibration"):
        load_calibration(make(), path)
