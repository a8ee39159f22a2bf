import keras
import numpy as np
import pytest
import small_models
from keras import layers
from tensorflow_quantization.utils import (
    KerasModelTraveller,
    convert_keras_model_to_onnx,
    convert_saved_model_to_onnx,
    ensure_and_clean_dir,
    find_my_predecessors,
    find_my_successors,
)

import tensorflow_quantization
from tensorflow_quantization import CreateAssetsFolders, quantize_model, utils


def test_documented_names_import():
    for name in utils.__all__:
        assert getattr(utils, name)
    for name in ("CreateAssetsFolders", "convert_saved_model_to_onnx", "convert_keras_model_to_onnx"):
        assert getattr(tensorflow_quantization, name) is getattr(utils, name)


def test_assets_have_the_documented_paths(tmp_path):
    base = tmp_path / "toolkit_basics"
    assets = CreateAssetsFolders(str(base))
    assets.add_folder("example")
    example = base / "example"
    assert assets.example.base == str(example)
    assert assets.example.fp32 == str(example / "fp32")
    assert assets.example.int8 == str(example / "int8")
    for precision in ("fp32", "int8"):
        saved = getattr(assets.example, f"{precision}_saved_model")
        assert saved == str(example / precision / "saved_model.keras")
        assert (example / precision).is_dir()
    assert assets.example.fp32_onnx_model == str(example / "fp32" / "original.onnx")
    assert assets.example.int8_onnx_model == str(example / "int8" / "quantized.onnx")


def test_saved_model_path_is_one_that_keras_saves_to(tmp_path, cnn):
    assets = CreateAssetsFolders(tmp_path)
    assets.add_folder("example")
    keras.models.save_model(cnn, assets.example.fp32_saved_model)
    assert keras.models.load_model(assets.example.fp32_saved_model).name == "cnn"


def test_existing_experiment_is_kept(tmp_path):
    for _ in range(2):
        assets = CreateAssetsFolders(tmp_path / "experiments")
        assets.add_folder("one")
        results = tmp_path / "experiments" / "one" / "fp32" / "results.txt"
        if not results.exists():
            results.write_text("precious")
    assert results.read_text() == "precious"


def test_several_folders_side_by_side(tmp_path):
    assets = CreateAssetsFolders(tmp_path)
    assets.add_folder("one")
    assets.add_folder("two")
    assert assets.one.fp32 != assets.two.fp32


@pytest.mark.parametrize("name", ["two words", "1st", "base", "add_folder", "a/b", ""])
def test_folder_name_that_can_be_no_attribute_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="becomes an attribute"):
        CreateAssetsFolders(tmp_path).add_folder(name)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_was_not_added_is_named(tmp_path):
    with pytest.raises(AttributeError, match=r"no folder 'example' yet: call add_folder\('example'\)"):
        CreateAssetsFolders(tmp_path).example


def fill(path):
    (path / "folder").mkdir(parents=True)
    (path / "folder" / "file").write_text("x")
    (path / "file").write_text("x")


def test_ensure_and_clean_dir_empties_a_folder(tmp_path):
    fill(tmp_path / "full")
    ensure_and_clean_dir(tmp_path / "full")
    assert list((tmp_path / "full").iterdir()) == []


def test_ensure_and_clean_dir_leaves_files_when_told_so(tmp_path):
    fill(tmp_path / "full")
    ensure_and_clean_dir(tmp_path / "full", do_clean_dir=False)
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["file", "folder"]


def test_ensure_and_clean_dir_makes_parents(tmp_path):
    ensure_and_clean_dir(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_cleaning_does_not_follow_links_out_of_the_folder(tmp_path):
    fill(tmp_path / "outside")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    ensure_and_clean_dir(tmp_path / "inside")
    assert list((tmp_path / "inside").iterdir()) == []
    assert (tmp_path / "outside" / "folder" / "file").exists()


def names(information):
    return [info["name"] for info in information]


def test_predecessors_come_in_input_order(residual):
    found = find_my_predecessors(residual, "add")
    assert names(found) == ["stem", "bn"]
    assert [info["class"] for info in found] == ["Conv2D", "BatchNormalization"]
    assert found[0]["layer"] is residual.get_layer("stem")
    assert found[0]["module"] == type(residual.get_layer("stem")).__module__
    assert set(found[0]) == {"class", "module", "name", "layer"}


def test_predecessor_of_a_first_layer_is_the_input(residual):
    (info,) = find_my_predecessors(residual, "stem")
    assert (info["class"], info["name"]) == ("InputLayer", "image")


def test_successors(residual):
    assert names(find_my_successors(residual, "stem")) == ["conv", "add"]
    assert find_my_successors(residual, "dense") == []


def test_neighbours_within_a_nested_model():
    model = small_models.nested()
    assert names(find_my_predecessors(model, "relu")) == ["bn"]
    assert names(find_my_successors(model, "backbone/relu")) == ["gap"]
    assert names(find_my_successors(model, "backbone")) == ["gap"]


def test_neighbours_of_a_shared_layer_are_those_of_every_call():
    model = small_models.siamese()
    assert names(find_my_predecessors(model, "encoder")) == ["left", "right"]


@pytest.mark.parametrize("find", [find_my_predecessors, find_my_successors])
def test_unknown_layer_is_refused_with_the_closest(residual, find):
    with pytest.raises(ValueError, match=r"no layer 'ad'\. Did you mean 'add'"):
        find(residual, "ad")


def test_traveller_lists_layers_in_order(residual):
    traveller = KerasModelTraveller(residual)
    assert traveller.get_layer_names() == ["image", "stem", "conv", "bn", "add", "relu", "gap", "dense"]
    information = traveller.get_layer_information()
    assert information[4]["class"] == "Add"
    assert information[4]["layer"] is residual.get_layer("add")


def test_traveller_looks_into_nested_models_and_lists_shared_layers_once():
    assert KerasModelTraveller(small_models.nested()).get_layer_names() == [
        *["image", "conv", "bn", "relu"],
        *["gap", "head"],
    ]
    assert KerasModelTraveller(small_models.siamese()).get_layer_names().count("conv") == 1


def test_traveller_takes_the_model_in_each_call_as_the_old_one_did(residual, capsys):
    traveller = KerasModelTraveller()
    assert traveller.get_layer_names(residual) == KerasModelTraveller(residual).get_layer_names()
    assert traveller.get_layer_names(keras_model=small_models.cnn())[0] == "image"
    assert capsys.readouterr().out == ""
    with pytest.raises(TypeError, match="Pass it here, or to KerasModelTraveller"):
        traveller.get_layer_names()


@pytest.mark.parametrize("wanted", ["Conv2D", "Convolution2D", layers.Conv2D])
def test_traveller_filters_by_class(residual, wanted):
    assert KerasModelTraveller().get_layer_names(residual, filter_by_class=wanted) == ["stem", "conv"]
    assert KerasModelTraveller(residual).get_layer_names(filter_by_class=wanted) == ["stem", "conv"]
    assert KerasModelTraveller().get_layer_names(residual, "Conv3D") == []


@pytest.mark.parametrize("traveller", [KerasModelTraveller(True), KerasModelTraveller(print_layer_config=True)])
def test_traveller_prints_layers_and_if_asked_their_config(residual, capsys, traveller):
    KerasModelTraveller().get_layer_information(residual)
    table = capsys.readouterr().out
    assert [line.split()[:2] for line in table.splitlines()[2:4]] == [["image", "InputLayer"], ["stem", "Conv2D"]]
    assert "kernel_size" not in table
    traveller.get_layer_information(residual)
    printed = capsys.readouterr().out
    assert printed.startswith(table)
    assert "stem: {'name': 'stem'" in printed
    assert "'kernel_size': (3, 3)" in printed


def test_traveller_of_one_model_prints_nothing(residual, capsys):
    KerasModelTraveller(residual).get_layer_information()
    assert capsys.readouterr().out == ""


def test_ranges_without_data_are_warned_of_at_the_line_of_the_user(tmp_path, cnn):
    with pytest.warns(UserWarning, match="never saw data") as found:
        convert_keras_model_to_onnx(quantize_model(cnn), tmp_path / "m.onnx")
    assert {w.filename for w in found if "never saw data" in str(w.message)} == {__file__}


def test_saved_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no saved model at .*nothing\.keras"):
        convert_saved_model_to_onnx(tmp_path / "nothing.keras", tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["model.txt", "folder"])
def test_what_keras_does_not_save_is_refused(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_text("x")
    with pytest.raises(ValueError, match=r"is not a saved Keras model: expected a \.keras, \.h5 or \.hdf5 file"):
        convert_saved_model_to_onnx(path, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_float_model_becomes_a_file_that_computes_the_same(tmp_path, suffix):
    onnxruntime = pytest.importorskip("onnxruntime")
    inputs = keras.Input((4,), name="x")
    model = small_models.randomize(keras.Model(inputs, layers.Dense(3, name="dense")(inputs)))
    saved, written = tmp_path / f"model{suffix}", tmp_path / "model.onnx"
    model.save(saved)
    convert_saved_model_to_onnx(str(saved), str(written))
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(y, keras.ops.convert_to_numpy(model(x)), rtol=1e-4, atol=1e-5)
