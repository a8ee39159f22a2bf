"""The documented helpers: folders for experiments, conversion to ONNX, and a look at a layer's neighbours."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any

import keras

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.keras_classes import class_names_in_spec, resolve_alias
from tensorflow_quantization.text.tables import text_table

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
        self.fp32_onnx_model = os.path.join(self.fp32, "original.onnx")
        self.int8_onnx_model = os.path.join(self.int8, "quantized.onnx")
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

        The attribute has `base`, the folders `fp32` and `int8`, and file names in them: `fp32_saved_model` and
        `int8_saved_model` (saved_model.keras), `fp32_onnx_model` (original.onnx), `int8_onnx_model` (quantized.onnx).

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
    """Lists the layers of models, layers of nested models included.

    The old toolkit gives the model to each method, `KerasModelTraveller().get_layer_names(model)`. A model may be given
    once, too: `KerasModelTraveller(model).get_layer_names()`.

    Args:
        keras_model: a built Keras model, for methods that are called without one.
        print_layer_config: `get_layer_information` prints the config of each layer, too; `False` by default. May stand
            first, as in the old toolkit.
    """

    def __init__(self, keras_model: keras.Model | bool | None = None, print_layer_config: bool = False):
        if isinstance(keras_model, bool):
            print_layer_config, keras_model = keras_model, None
        self.print_layer_config = print_layer_config
        self.graph = None if keras_model is None else LayerGraph.trace(keras_model).flatten()

    def get_layer_names(
        self, keras_model: keras.Model | None = None, filter_by_class: str | type | None = None
    ) -> list[str]:
        """The names of the layers in the order of the computation, inputs first.

        Args:
            keras_model: a built Keras model; by default the model of the constructor.
            filter_by_class: only layers of this class or of its subclasses: the class, or its name as in an entry of a
                `QuantizationSpec`; `None`: all layers.

        Raises:
            TypeError: there is no model.
        """
        return [layer.name for layer in self._layers(keras_model) if _is_of_class(layer, filter_by_class)]

    def get_layer_information(self, keras_model: keras.Model | None = None) -> list[dict[str, Any]]:
        """What the layers are, in the order of the computation, inputs first; printed if the model is given here.

        Args:
            keras_model: a built Keras model; by default the model of the constructor.

        Returns:
            For each layer a dict: `class`, `module`, `name`, `layer`.

        Raises:
            TypeError: there is no model.
        """
        found = [_information(layer) for layer in self._layers(keras_model)]
        if keras_model is not None:
            titles = ["name", "class", "module"]
            print(text_table(titles, [[information[title] for title in titles] for information in found]))
            if self.print_layer_config:
                for information in found:
                    print(f"\n{information['name']}: {information['layer'].get_config()}")
        return found

    def _layers(self, keras_model: keras.Model | None) -> list[keras.layers.Layer]:
        graph = self.graph if keras_model is None else LayerGraph.trace(keras_model).flatten()
        if graph is None:
            raise TypeError("Which model? Pass it here, or to KerasModelTraveller.")
        layers = [tensor.source for tensor in graph.inputs if tensor.source is not None]
        layers += [call.operation for call in graph.calls if call.is_layer]
        return list(dict.fromkeys(layers))


def _is_of_class(layer: keras.layers.Layer, wanted: str | type | None) -> bool:
    if isinstance(wanted, str):
        names = class_names_in_spec(type(layer))
        return wanted in names or resolve_alias(wanted) in names
    return wanted is None or isinstance(layer, wanted)


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
