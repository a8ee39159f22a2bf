"""Saved models from elsewhere: damaged files, and files with code."""

import io
import random
import zipfile

import keras
import pytest
from keras import layers
from mutations import mutate

from tensorflow_quantization.legacy.utils import convert_saved_model_to_onnx
from tensorflow_quantization.model import files
from tensorflow_quantization.model.files import load_model


def saved(path, *own):
    keras.Sequential([keras.Input((3,)), *own, layers.Dense(2)]).save(path)
    return path


def with_config(data, change):
    """A `.keras` file in which only the config is another, with right checksums."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name == "config.json" else old.read(name))
    return result.getvalue()


@pytest.mark.parametrize("part", ["archive", "config"])
def test_a_damaged_file_is_loaded_or_refused_with_a_reason(part, tmp_path):
    path = saved(tmp_path / "m.keras")
    data = path.read_bytes()
    for seed in range(60):
        rng = random.Random(seed)
        path.write_bytes(mutate(data, rng) if part == "archive" else with_config(data, lambda c, r=rng: mutate(c, r)))
        try:
            load_model(path)
        except ValueError as error:
            assert str(path) in str(error), f"seed {seed}"
        except Exception as error:
            pytest.fail(f"seed {seed}: {error!r}")


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_hdf5_file_is_loaded_or_refused_with_a_reason(seed, tmp_path):
    path = saved(tmp_path / "m.h5")
    path.write_bytes(mutate(path.read_bytes(), random.Random(seed)))
    try:
        load_model(path)
    except ValueError as error:
        assert str(path) in str(error)


def test_a_file_that_the_library_searches_forever_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST_SECONDS", 5)
    path = saved(tmp_path / "m.h5")
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL") + 59  # within the first entry of the heap with the attributes
    data[start : start + 256] = bytes(256)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is damaged: it was not read in 5 s\."):
        load_model(path)


def test_a_part_with_a_wrong_checksum_is_named(tmp_path):
    path = saved(tmp_path / "m.keras")
    data = bytearray(path.read_bytes())
    data[data.index(b'"dense"')] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"the checksum of its part 'config\.json' is wrong"):
        load_model(path)


def test_weights_alone_are_named(tmp_path):
    path = tmp_path / "m.weights.h5"
    keras.Sequential([keras.Input((3,)), layers.Dense(2)]).save_weights(path)
    with pytest.raises(ValueError, match=r"weights\.h5 holds weights only, without the layers of the model\. Build"):
        load_model(path)
    path.rename(tmp_path / "m.h5")
    with pytest.raises(ValueError, match=r"m\.h5 holds no config of a model: it seems to hold weights only"):
        load_model(tmp_path / "m.h5")


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_code_in_a_file_does_not_run(name, tmp_path):
    path = saved(tmp_path / name, layers.Lambda(lambda x: x * 2))
    with pytest.raises(ValueError, match=r"It was not run\. If you trust the origin"):
        load_model(path)
    with pytest.raises(ValueError, match=r"It was not run\. If you trust the origin"):
        convert_saved_model_to_onnx(path, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    assert load_model(path, trusted=True).count_params() == 8


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.keras", FileNotFoundError, "There is no file"),
        ("m.onnx", ValueError, r"expected a \.keras, \.h5 or \.hdf5 file"),
        ("", ValueError, "is a directory"),
    ],
)
def test_what_is_no_saved_model_is_said(name, error, message, tmp_path):
    (tmp_path / "m.onnx").touch()
    with pytest.raises(error, match=message):
        load_model(tmp_path / name)
