"""The documented helpers: folders for experiments, conversion to ONNX, and a look at a layer's neighbours."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph

__all__ = [
    "CreateAssetsFolders",
    "KerasModelTraveller",
    "convert_keras_model_to_onnx",
    "convert_saved_model_to_onnx",
    "ensure_and_clean_dir",
    "find_my_predecessors",
    "find_my_successors",
]


def ensure_and_clean_dir(path: str | os.PathLike, do_clean_dir: bool = True) -> None:
    """Make a directory, with its parents.

    Args:
        path: the directory.
        do_clean_dir: delete what is in it already.
    """
    if do_clean_dir and os.path.isdir(path):
        for entry in pathlib.Path(path).iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    os.makedirs(path, exist_ok=True)


class _Assets:
    """The paths of one experiment, as strings; the folders exist."""

    def __init__(self, base: str):
        self.base = base
        self.fp32 = os.path.join(base, "fp32")
        self.int8 = os.path.join(base, "int8")
        self.fp32_saved_model = os.path.join(self.fp32, "saved_model.keras")
        self.int8_saved_model = os.path.join(self.int8, "saved_model.keras")
        self.fp32_onnx_model = os.path.join(self.fp32, "model.onnx")
        self.int8_onnx_model = os.path.join(self.int8, "model.onnx")
        for folder in (self.fp32, self.int8):
            ensure_and_clean_dir(folder, do_clean_dir=False)


class CreateAssetsFolders:
    """Folders and file names for experiments; what is in them already stays.

    Example:
        >>> assets = CreateAssetsFolders("toolkit_basics")
        >>> assets.add_folder("example")
        >>> assets.example.fp32_saved_model
        'toolkit_basics/example/fp32/saved_model.keras'

    Args:
        base_experiment_directory: made if it does not exist.
    """

    def __init__(self, base_experiment_directory: str | os.PathLike):
        self.base = os.fspath(base_experiment_directory)
        ensure_and_clean_dir(self.base, do_clean_dir=False)

    def add_folder(self, folder_name: str) -> None:
        """Make `<base>/<folder_name>` and name its paths in an attribute called `folder_name`.

        That has `base`, and of each `fp32` and `int8` the folder, `<…>_saved_model` (.keras) and `<…>_onnx_model`.

        Raises:
            ValueError: the name is no Python identifier, or one of this class' own attributes.
        """
        if not folder_name.isidentifier() or hasattr(CreateAssetsFolders, folder_name) or folder_name == "base":
            raise ValueError(f"A folder name becomes an attribute; {folder_name!r} cannot be one.")
        setattr(self, folder_name, _Assets(os.path.join(self.base, folder_name)))

    def __getattr__(self, name: str) -> _Assets:
        raise AttributeError(f"There is no folder {name!r} yet: call add_folder({name!r}).")


def convert_keras_model_to_onnx(
    keras_model: keras.Model, onnx_model_path: str | os.PathLike, opset: int | None = None
) -> None:
    """Write a Keras model, quantized or not, as an ONNX file: `export_onnx` by its documented name.

    Args:
        keras_model: a built Keras model.
        onnx_model_path: of the file; its folder must exist.
        opset: the ONNX opset; `None`: the least that the model needs.
    """
    from tensorflow_quantization.export import export_onnx  # onnx is loaded only when a file is written

    export_onnx(keras_model, onnx_model_path, opset=opset)


def convert_saved_model_to_onnx(
    saved_model_dir: str | os.PathLike, onnx_model_path: str | os.PathLike, opset: int | None = None
) -> None:
    """Write whatever a Keras user saved as an ONNX file.

    Args:
        saved_model_dir: a `.keras` or `.h5` file, or a SavedModel directory; the latter goes through tf2onnx, which
            has to be installed.
        onnx_model_path: of the ONNX file; its folder must exist.
        opset: the ONNX opset; `None`: the least that the model needs.

    Raises:
        FileNotFoundError: there is nothing at `saved_model_dir`.
        ValueError: it is nothing that Keras saves.
        ImportError: it is a SavedModel directory, and tf2onnx is not installed.
    """
    path = pathlib.Path(saved_model_dir)
    if not path.exists():
        raise FileNotFoundError(f"There is no saved model at {os.fspath(saved_model_dir)!r}.")
    if (path / "saved_model.pb").is_file():
        from tensorflow_quantization.export.onnx.saved_model import convert_saved_model_directory

        convert_saved_model_directory(path, onnx_model_path, opset=opset)
        return
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ValueError(
            f"{os.fspath(saved_model_dir)!r} is not a saved Keras model: expected a .keras or .h5 file, or a "
            "SavedModel directory (with a saved_model.pb in it)."
        )
    convert_keras_model_to_onnx(keras.models.load_model(path, compile=False), onnx_model_path, opset=opset)


class KerasModelTraveller:
    """Lists the layers of a model, those of nested models included.

    Args:
        keras_model: a built Keras model.
    """

    def __init__(self, keras_model: keras.Model):
        self.graph = LayerGraph.trace(keras_model).flatten()

    def get_layer_names(self) -> list[str]:
        """The names of the layers in the order of the computation, inputs first."""
        return [info["name"] for info in self.get_layer_information()]

    def get_layer_information(self) -> list[dict[str, Any]]:
        """A dict a layer, in the same order: `class`, `module`, `name`, `layer`."""
        layers = [tensor.source for tensor in self.graph.inputs if tensor.source is not None]
        layers += [call.operation for call in self.graph.calls if call.is_layer]
        return [_information(layer) for layer in dict.fromkeys(layers)]


def find_my_predecessors(model: keras.Model, layer_name: str) -> list[dict[str, Any]]:
    """The layers whose outputs a layer reads.

    Args:
        model: a built Keras model.
        layer_name: the name of one of its layers, also of one within a nested model.

    Returns:
        A dict an input of the layer, in input order: `class`, `module`, `name`, `layer`.

    Raises:
        ValueError: there is no such layer; the message names the closest ones.
    """
    _, calls = _find(model, layer_name)
    producers = [t.producer.operation if t.producer else t.source for call in calls for t in call.inputs]
    return [_information(layer) for layer in producers if layer is not None]


def find_my_successors(model: keras.Model, layer_name: str) -> list[dict[str, Any]]:
    """The layers that read a layer's output; see `find_my_predecessors`."""
    graph, calls = _find(model, layer_name)
    return [_information(successor.operation) for call in calls for successor in graph.successors(call)]


def _find(model: keras.Model, layer_name: str) -> tuple[LayerGraph, list[Call]]:
    graph = LayerGraph.trace(model)
    if any(layer_name in (call.name, call.path) for call in graph.calls):
        return graph, graph.find(layer_name)
    graph = graph.flatten()
    return graph, graph.find(layer_name)


def _information(layer: Any) -> dict[str, Any]:
    cls = type(layer)
    return {"class": cls.__name__, "module": cls.__module__, "name": layer.name, "layer": layer}
