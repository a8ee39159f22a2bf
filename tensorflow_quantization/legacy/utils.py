"""The helpers of NVIDIA's toolkit: folders for experiments, conversion to ONNX, and queries on a model's layers."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any

import keras

from tensorflow_quantization.model.files import load_model
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.keras_classes import class_names_in_spec, resolve_alias
from tensorflow_quantization.text.messages import MODEL_SUFFIXES, is_path, must_be_path
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
    """Create a directory and its parents.

    Examples:
        >>> ensure_and_clean_dir("experiments/first")
        >>> os.listdir("experiments")
        ['first']

    Args:
        path: the directory.
        do_clean_dir: `True` (default): delete everything in the directory if it exists. `False`: keep it.
    """
    if do_clean_dir and os.path.isdir(path):
        for entry in pathlib.Path(path).iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    os.makedirs(path, exist_ok=True)


class _Assets:
    """The paths of one experiment as strings. The constructor creates the folders."""

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
    """Create folders for experiments, with fixed file names for models. Existing files are kept.

    Examples:
        >>> assets = CreateAssetsFolders("toolkit_basics")
        >>> assets.add_folder("example")
        >>> assets.example.fp32_saved_model
        'toolkit_basics/example/fp32/saved_model.keras'

    Args:
        base_experiment_directory: the folder for all experiments; it is created if it does not exist.
    """

    def __init__(self, base_experiment_directory: str | os.PathLike):
        if not is_path(base_experiment_directory):
            raise TypeError(must_be_path("base_experiment_directory", base_experiment_directory))
        self.base = os.fspath(base_experiment_directory)
        ensure_and_clean_dir(self.base, do_clean_dir=False)

    def add_folder(self, folder_name: str) -> None:
        """Create the folder `<base>/<folder_name>`, and add an attribute `folder_name` with its paths.

        The attribute holds strings: `base`; the folders `fp32` and `int8`; and the paths of files in them,
        `fp32_saved_model` and `int8_saved_model` (saved_model.keras), `fp32_onnx_model` (original.onnx) and
        `int8_onnx_model` (quantized.onnx).

        Args:
            folder_name: the name of the folder and of the attribute.

        Raises:
            ValueError: the name is not a Python identifier, or the class has an attribute of this name.
        """
        if not isinstance(folder_name, str):
            raise TypeError(f"folder_name must be a str, got {folder_name!r}.")
        if not folder_name.isidentifier() or hasattr(CreateAssetsFolders, folder_name) or folder_name == "base":
            raise ValueError(f"A folder name becomes an attribute, and {folder_name!r} cannot be an attribute name.")
        setattr(self, folder_name, _Assets(os.path.join(self.base, folder_name)))

    def __getattr__(self, name: str) -> _Assets:
        raise AttributeError(f"There is no folder {name!r} yet: call add_folder({name!r}).")


def convert_keras_model_to_onnx(
    keras_model: keras.Model, onnx_model_path: str | os.PathLike, opset: int | None = None
) -> None:
    """Write a Keras model, quantized or float, as an ONNX file: `export_onnx` under its name in NVIDIA's toolkit.

    Examples:
        >>> convert_keras_model_to_onnx(model, "converted.onnx")
        >>> os.path.exists("converted.onnx")
        True

    Args:
        keras_model: a built `keras.Model`.
        onnx_model_path: the file to write; its folder must exist.
        opset: the ONNX opset, 13 or newer; `None` (default): the lowest opset that the model needs.

    Raises:
        TypeError, ValueError: as `export_onnx` does.
    """
    from tensorflow_quantization.export import export_onnx  # imported late: it loads the ONNX libraries

    export_onnx(keras_model, onnx_model_path, opset=opset)


def convert_saved_model_to_onnx(
    saved_model_dir: str | os.PathLike, onnx_model_path: str | os.PathLike, opset: int | None = None
) -> None:
    """Write a saved Keras model as an ONNX file.

    Examples:
        >>> model.save("saved_model.keras")
        >>> convert_saved_model_to_onnx("saved_model.keras", "saved_model.onnx")
        >>> os.path.exists("saved_model.onnx")
        True

    Args:
        saved_model_dir: a `.keras`, `.h5` or `.hdf5` file, or a SavedModel directory. tf2onnx converts a directory, and
            must be installed for it.
        onnx_model_path: the ONNX file to write; its folder must exist.
        opset: the ONNX opset, 13 or newer; `None` (default): the lowest opset that the model needs.

    Raises:
        FileNotFoundError: `saved_model_dir` does not exist.
        ValueError: it is not a saved Keras model, is damaged, or has a Lambda layer with Python code.
        ImportError: it is a SavedModel directory, and tf2onnx is not installed.
    """
    path = pathlib.Path(saved_model_dir)
    if not path.exists():
        raise FileNotFoundError(f"There is no saved model at {os.fspath(saved_model_dir)!r}.")
    if (path / "saved_model.pb").is_file():
        from tensorflow_quantization.export.onnx.saved_model import convert_saved_model_directory

        convert_saved_model_directory(path, onnx_model_path, opset=opset)
        return
    if path.suffix not in MODEL_SUFFIXES:
        raise ValueError(
            f"{os.fspath(saved_model_dir)!r} is not a saved Keras model: expected a .keras, .h5 or .hdf5 file, or "
            "a SavedModel directory, which holds a saved_model.pb."
        )
    convert_keras_model_to_onnx(load_model(path), onnx_model_path, opset=opset)


class KerasModelTraveller:
    """Lists the layers of a model, including the layers of nested models.

    Pass the model to the constructor, or to each method as in NVIDIA's toolkit:
    `KerasModelTraveller().get_layer_names(model)`.

    Examples:
        >>> KerasModelTraveller(model).get_layer_names()
        ['image', 'conv', 'pool', 'scores']
        >>> KerasModelTraveller(model).get_layer_names(filter_by_class="Dense")
        ['scores']

    Args:
        keras_model: a built `keras.Model` for methods that are called without a model; `None` (default): no model.
        print_layer_config: `get_layer_information` also prints the config of each layer; `False` by default. It may be
            the first argument, as in NVIDIA's toolkit.
    """

    def __init__(self, keras_model: keras.Model | bool | None = None, print_layer_config: bool = False):
        if isinstance(keras_model, bool):
            print_layer_config, keras_model = keras_model, None
        self.print_layer_config = print_layer_config
        self.graph = None if keras_model is None else LayerGraph.trace(keras_model).flatten()

    def get_layer_names(
        self, keras_model: keras.Model | None = None, filter_by_class: str | type | None = None
    ) -> list[str]:
        """Return the names of the layers in the order of the calls, inputs first.

        Args:
            keras_model: a built `keras.Model`; `None` (default): the model of the constructor.
            filter_by_class: return only layers of this class or of its subclasses. A class, or its name as in an entry
                of a `QuantizationSpec`; `None` (default): all layers.

        Returns:
            A list of names; a shared layer is listed once.

        Raises:
            TypeError: neither this call nor the constructor got a model.
        """
        return [layer.name for layer in self._layers(keras_model) if _is_of_class(layer, filter_by_class)]

    def get_layer_information(self, keras_model: keras.Model | None = None) -> list[dict[str, Any]]:
        """Return the class, module and name of each layer in the order of the calls, inputs first.

        If `keras_model` is passed to this method, it also prints them as a table.

        Args:
            keras_model: a built `keras.Model`; `None` (default): the model of the constructor.

        Returns:
            For each layer a dict with the keys "class", "module" and "name" (strings) and "layer" (the layer).

        Raises:
            TypeError: neither this call nor the constructor got a model.
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
            raise TypeError("There is no model. Pass it here, or to KerasModelTraveller.")
        layers = [tensor.source for tensor in graph.inputs if tensor.source is not None]
        layers += [call.operation for call in graph.calls if call.is_layer]
        return list(dict.fromkeys(layers))


def _is_of_class(layer: keras.layers.Layer, wanted: str | type | None) -> bool:
    if isinstance(wanted, str):
        names = class_names_in_spec(type(layer))
        return wanted in names or resolve_alias(wanted) in names
    return wanted is None or isinstance(layer, wanted)


def find_my_predecessors(model: keras.Model, layer_name: str) -> list[dict[str, Any]]:
    """Return the layers whose outputs a layer reads.

    Examples:
        >>> [layer["name"] for layer in find_my_predecessors(model, "pool")]
        ['conv']

    Args:
        model: a built `keras.Model`.
        layer_name: the name or path of a layer of the model or of a nested model.

    Returns:
        For each input of the layer, in order, a dict with the keys "class", "module" and "name" (strings) and "layer"
        (the layer).

    Raises:
        ValueError: there is no such layer; the message names the closest names.
    """
    _, calls = _find(model, layer_name)
    producers = [t.producer.operation if t.producer else t.source for call in calls for t in call.inputs]
    return [_information(layer) for layer in producers if layer is not None]


def find_my_successors(model: keras.Model, layer_name: str) -> list[dict[str, Any]]:
    """Return the layers that read the output of a layer.

    Examples:
        >>> [layer["name"] for layer in find_my_successors(model, "pool")]
        ['scores']

    Args:
        model: a built `keras.Model`.
        layer_name: the name or path of a layer of the model or of a nested model.

    Returns:
        For each layer that reads the output, a dict with the keys "class", "module" and "name" (strings) and "layer"
        (the layer).

    Raises:
        ValueError: there is no such layer; the message names the closest names.
    """
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
