"""Load a saved Keras model from any origin: damage is found before Keras reads the file, and no code in it runs."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import zipfile

import keras

from tensorflow_quantization.model import hdf5_check
from tensorflow_quantization.text.messages import check_is_model_path, error_in_one_line

#: A longer reason holds a config.
_LONGEST = 300

#: Seconds to read all but the arrays of an HDF5 file: far above what a large network needs.
_MOST_SECONDS = 60

#: How the config of a Lambda layer with code marks the code, in `.keras` and in older files.
_CODE = (b'"__lambda__"', b'"function_type": "lambda"')
#: How Keras names an object of the file that it does not know.
_MISSING = re.compile(r"Could not locate (class|function) '([^']+)'")


def load_model(path: str | os.PathLike, *, trusted: bool = False) -> keras.Model:
    """The model in a `.keras`, `.h5` or `.hdf5` file, not compiled.

    Args:
        path: the path of the file.
        trusted: whether code in the file may run: the functions of Lambda layers. Default: no.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a saved Keras model, is damaged, or has layers that Keras cannot build; or it holds
            code and is not trusted.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    check_is_model_path(path)
    if path.suffix == ".keras":
        _check_archive(path)
    else:
        _check_hdf5(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not trusted)
    except Exception as error:  # a damaged file may raise anything in Keras
        if not trusted and _holds_code(path):
            raise ValueError(
                f"{path} has a Lambda layer with Python code, which would run when the model is loaded or used. It was "
                "not run. If you trust the origin of the file, load it with keras.saving.load_model(path, "
                "safe_mode=False), or pass --trust on the command line."
            ) from error
        if "No model config found" in str(error):
            raise ValueError(
                f"{path} holds no config of a model: it seems to hold weights only. Build the model in Python, "
                'model.load_weights(path), and model.save("model.keras").'
            ) from error
        missing = _MISSING.search(str(error))
        if missing:
            raise ValueError(
                f"{path} has the {missing[1]} {missing[2]!r}, which is not imported. First import the module that "
                "registers it with keras.saving.register_keras_serializable; on the command line, pass --import MODULE."
            ) from error
        raise ValueError(
            f"{path} cannot be loaded: {_reason(error)}\nThe file is damaged, was written by another version of Keras, "
            "or has layers whose classes are not imported."
        ) from error


def _check_archive(path: pathlib.Path) -> None:
    """Compare the checksums of all parts: Keras reads some parts without."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # zipfile raises errors of many classes for a damaged directory of the archive
        raise ValueError(f"{path} is not a .keras file, or is damaged: {_reason(error)}") from error
    if broken is not None:
        raise ValueError(f"{path} is damaged: the checksum of its part {broken!r} is wrong. Copy or save it again.")


def _check_hdf5(path: pathlib.Path) -> None:
    """Let another process read the file first: the HDF5 library may search a damaged file forever, or crash."""
    # -P: the folder of the script is no place to import from.
    command = [sys.executable, "-P", hdf5_check.__file__, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_MOST_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{path} is damaged: it was not read in {_MOST_SECONDS} s. Copy or save it again.") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1][:_LONGEST] if lines else f"reading it ended the process, with status {done.returncode}"
        raise ValueError(f"{path} is not an HDF5 file, or is damaged: {reason}")


def _holds_code(path: pathlib.Path) -> bool:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json") if "config.json" in archive.namelist() else b""
    else:
        config = path.read_bytes()
    return any(mark in config for mark in _CODE)


def _reason(error: Exception) -> str:
    return error_in_one_line(error)[:_LONGEST]
