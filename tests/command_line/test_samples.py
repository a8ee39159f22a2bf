"""Samples from folders and files: what a model gets of them."""

import argparse
import os
import shutil

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from tensorflow_quantization_cli.arguments import images_in
from tensorflow_quantization_cli.samples import open_samples


def options(data, **given):
    unset = dict.fromkeys(("size", "scale", "mean", "std", "preprocess"))
    return argparse.Namespace(data=str(data), crop=False, **{**unset, **given})


def model_of(*shape, batch=None):
    inputs = keras.Input(shape, batch_size=batch, name="image")
    return keras.Model(inputs, layers.Activation("linear")(inputs))


@pytest.fixture
def folder(tmp_path):
    """One image of 4 x 8 pixels: red, and green in the left and right quarter."""
    pixels = np.zeros((4, 8, 3), "uint8")
    pixels[:, 2:6, 0] = 200
    pixels[:, :2, 1] = pixels[:, 6:, 1] = 100
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return tmp_path


def only(model, given):
    return open_samples(model, given).read([0])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_more_than_8_bits_is_refused(folder, channels):
    Image.fromarray(np.full((4, 8), 30000, "uint16")).save(folder / "deep.png")
    samples = open_samples(model_of(4, 8, channels), options(folder))
    with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits a channel \(mode I;16 of Pillow\)"):
        samples.read([0, 1])


@pytest.mark.parametrize("ending", ["jfif", "ppm"])
def test_images_have_other_endings_too_and_what_is_left_out_is_said(folder, ending, capsys):
    Image.open(folder / "one.png").save(folder / f"two.{ending}", {"jfif": "JPEG"}.get(ending))
    for name in ("raw.heic", "other.heic", "labels.csv", ".hidden"):
        (folder / name).touch()
    assert open_samples(model_of(4, 8, 3), options(folder)).read([0, 1]).shape == (2, 4, 8, 3)
    assert capsys.readouterr().err == (f"Files in {folder} that are left out, by their endings: 2 x .heic, 1 x .csv\n")


def test_links_to_folders_are_searched_and_circles_end(folder):
    outside = folder / "outside"
    images = folder / "images"
    for inner in (outside / "deep", images / "inner"):
        inner.mkdir(parents=True)
        shutil.copy(folder / "one.png", inner / "one.png")
    (images / "cats").symlink_to("../outside")
    (images / "inner" / "circle").symlink_to("..")
    (images / "above").symlink_to("../..")
    (images / "twice").symlink_to("inner")
    found, _ = images_in(images)
    assert found == [images / "cats" / "deep" / "one.png", images / "inner" / "one.png"]


def test_an_image_that_is_not_damaged_and_cannot_be_read_gets_its_reason(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("1", (50, 50)).save(folder / "large.png")
    (folder / "lost.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")  # to open it would wait for ever
    (folder / "two.jpg").write_text("no image")
    with pytest.raises(ValueError, match="4 of 5") as raised:
        open_samples(model_of(4, 8, 3), options(folder)).read(range(5))
    assert str(raised.value) == (
        f"4 of 5 images cannot be read. More pixels than Pillow reads, 0.002 million: {folder}/large.png. "
        f"Links to nothing: {folder}/lost.jpg. Pipes or devices: {folder}/pipe.jpg. "
        f"Damaged or no images: {folder}/two.jpg. Repair or remove them."
    )


def test_an_image_is_resized_to_the_input_and_stays_in_its_scale(folder):
    image = only(model_of(4, 8, 3), options(folder))
    np.testing.assert_array_equal(image, np.asarray(Image.open(folder / "one.png"), "float32")[None])
    assert only(model_of(2, 2, 3), options(folder)).shape == (1, 2, 2, 3)
    assert only(model_of(None, None, 3), options(folder, size=(6, 5))).shape == (1, 6, 5, 3)


def test_a_crop_keeps_the_middle(folder):
    assert only(model_of(4, 4, 3), options(folder))[..., 1].any()  # stretched: the quarters are there
    given = options(folder)
    given.crop = True
    np.testing.assert_array_equal(only(model_of(4, 4, 3), given), np.full((1, 4, 4, 3), [200, 0, 0]))


def test_channels_follow_the_input(folder):
    grey = only(model_of(4, 8, 1), options(folder))
    assert grey[0, 0, 4, 0] == pytest.approx(0.299 * 200, abs=1)  # ITU-R 601, as Pillow
    first = only(model_of(3, 4, 8), options(folder, scale=0.5, mean=[1.0, 2.0, 3.0]))
    last = only(model_of(4, 8, 3), options(folder, scale=0.5, mean=[1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))


def test_scale_mean_and_deviation_apply_in_this_order(folder):
    image = only(model_of(4, 8, 3), options(folder, scale=1 / 200, mean=[0.5], std=[0.25, 0.5, 1.0]))
    np.testing.assert_allclose(image[0, 0, 4], [2.0, -1.0, -0.5], rtol=1e-6)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_preprocessing_is_that_of_keras_applications(folder, mode):
    raw = np.asarray(Image.open(folder / "one.png"), "float32")[None]
    expected = keras.applications.imagenet_utils.preprocess_input(raw.copy(), mode=mode, data_format="channels_last")
    np.testing.assert_allclose(only(model_of(4, 8, 3), options(folder, preprocess=mode)), expected)


def test_a_model_without_images_and_a_model_of_any_size_are_named(folder):
    with pytest.raises(ValueError, match=r"this one has image \(None, 6\)"):
        open_samples(model_of(6), options(folder))
    with pytest.raises(ValueError, match=r"takes images of any size. Pass one: --size 224x224"):
        open_samples(model_of(None, None, 3), options(folder))
    with pytest.raises(ValueError, match="3 channels, and these have 1"):
        open_samples(model_of(4, 8, 1), options(folder, preprocess="tf"))


def test_a_split_does_not_overlap_and_fills_batches(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros((103, 6)))
    samples = open_samples(model_of(6), options(tmp_path / "data.npy"))
    chosen, held_out = samples.split(50, seed=0)
    assert len(chosen) == 50 and len(held_out) == 20
    assert len({*chosen, *held_out}) == 70
    samples = open_samples(model_of(6, batch=8), options(tmp_path / "data.npy"))
    assert [len(part) for part in samples.split(50, seed=0)] == [48, 16]
    with pytest.raises(ValueError, match="fixed batch size of 8, and the data holds 103 samples, of which 5"):
        samples.split(5, seed=0)


def test_few_samples_are_all_for_calibration(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros((3, 6)))
    chosen, held_out = open_samples(model_of(6), options(tmp_path / "data.npy")).split(50, seed=0)
    assert len(chosen) == 3 and not len(held_out)


def test_training_sees_all_others_and_begins_again(tmp_path):
    np.save(tmp_path / "data.npy", np.arange(10.0)[:, None])
    samples = open_samples(model_of(1), options(tmp_path / "data.npy"))
    batches = samples.training(np.array([3, 4]), size=4, steps=3, seed=0)
    seen = np.concatenate([batches[index][0] for index in range(len(batches))]).ravel()
    assert len(batches) == 3 and set(seen) == set(range(10)) - {3, 4}
    np.testing.assert_array_equal(seen[8:], seen[:4])


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("wrong", [-1, 10])
def test_an_index_that_an_embedding_does_not_have_is_named(tmp_path, dtype, wrong):
    tokens = keras.Input((4,), dtype=dtype, name="tokens")
    model = keras.Model(tokens, layers.Embedding(10, 3, name="words")(tokens))
    indices = np.arange(12).reshape(3, 4) % 10
    np.save(tmp_path / "data.npy", indices)
    assert only(model, options(tmp_path / "data.npy")).shape == (1, 4)
    indices[2, 1] = wrong
    np.save(tmp_path / "data.npy", indices)
    samples = open_samples(model, options(tmp_path / "data.npy"))
    with pytest.raises(
        ValueError, match=f"holds {wrong} for input 'tokens', first in sample 2, and layer 'words' takes"
    ):
        samples.read([0, 2])


def test_an_input_of_integers_takes_whole_numbers_only(tmp_path):
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    model = keras.Model(tokens, layers.Embedding(10, 3, name="words")(tokens))
    indices = np.arange(20.0).reshape(5, 4) % 10
    np.save(tmp_path / "data.npy", indices)
    assert only(model, options(tmp_path / "data.npy")).dtype == "int32"
    indices[3, 1] = 0.5
    np.save(tmp_path / "data.npy", indices)
    samples = open_samples(model, options(tmp_path / "data.npy"))
    text = r"data\.npy holds 0\.5 for input 'tokens', first in sample 3, and the input takes integers, int32\."
    with pytest.raises(ValueError, match=text):
        samples.read([4, 3])


def test_arrays_of_an_archive_have_the_names_of_the_inputs(tmp_path):
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    model = keras.Model([left, right], layers.Concatenate()([left, right]))
    np.savez(tmp_path / "data.npz", right=np.ones((4, 3)), left=np.zeros((4, 2)))
    found = open_samples(model, options(tmp_path / "data.npz")).read([0, 2])
    assert [array.shape for array in found] == [(2, 2), (2, 3)]
    np.savez(tmp_path / "data.npz", rihgt=np.ones((4, 3)), left=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="Did you mean 'right'"):
        open_samples(model, options(tmp_path / "data.npz"))
    np.savez(tmp_path / "data.npz", right=np.ones((4, 3)), left=np.zeros((5, 2)))
    with pytest.raises(
        ValueError,
        match=r"as many samples in each array, .* got shapes right \(4, 3\), left \(5, 2\)\.",
    ):
        open_samples(model, options(tmp_path / "data.npz"))
    np.save(tmp_path / "data.npy", np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"the model has the inputs left, right. Pass an .npz file"):
        open_samples(model, options(tmp_path / "data.npy"))
