"""Sentences that several error messages share."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence

#: Other names of runtimes and dtypes, in lower case without spaces and punctuation, to our names.
_OTHER_NAMES = {
    "ort": "onnxruntime",
    "onnx": "onnxruntime",
    "trt": "tensorrt",
    "tflite": "litert",
    "tensorflowlite": "litert",
    "ov": "openvino",
    "fp8": "float8_e4m3fn",
    "float8": "float8_e4m3fn",
    "float8e4m3": "float8_e4m3fn",
    "float8e4m3fn": "float8_e4m3fn",
}

#: What is wrong, in an error that Keras raises again with the layer and its arguments.
_BOLD = re.compile(r"\x1b\[1m(.+?)\x1b\[0m", re.DOTALL)


#: Endings of saved Keras models.
MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")
#: What to do with files of other kinds.
_OTHER_FILES = {
    ".onnx": " An .onnx file is read by check_onnx and runtime_report, or the commands `check` and `report`.",
    ".tflite": " A .tflite file is written from a Keras model, and cannot be read back.",
}


def check_is_model_path(path: str | os.PathLike) -> None:
    """Raises: ValueError: the path is not that of a saved Keras model: a directory, weights alone or another ending."""
    path = os.fspath(path)
    if os.path.isdir(path):
        raise ValueError(f"{path} is a directory; pass the path of a .keras, .h5 or .hdf5 file.")
    if path.endswith(".weights.h5"):
        raise ValueError(
            f"{path} holds weights only, without the layers of the model. Build the model in Python, "
            'model.load_weights(path), and model.save("model.keras").'
        )
    suffix = os.path.splitext(path)[1]
    if suffix not in MODEL_SUFFIXES:
        hint = _OTHER_FILES.get(suffix.lower(), "")
        raise ValueError(f"{path} is not a saved Keras model: expected a .keras, .h5 or .hdf5 file.{hint}")


def did_you_mean(name: str, existing: list[str]) -> str:
    """Returns " Did you mean 'a' or 'b'?" with the existing names closest to `name`; an empty string if none is."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(existing)), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def shortened(names: Sequence[str], most: int = 5) -> str:
    """Returns names in one line, and how many there are besides if there are more than `most`.

    Examples:
        >>> shortened(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def must_be_one_of(argument: str, allowed: Iterable[str], got: object, besides: str = "") -> str:
    """Returns the error message for an argument that is not one of the allowed names.

    Args:
        argument: the name of the argument.
        allowed: the allowed names; the message proposes the closest.
        got: the value that was passed.
        besides: another allowed kind of value, such as "a Target"; default none.
    """
    names = list(allowed)
    choice = ", ".join([*map(repr, names), *([f"or {besides}"] if besides else [])])
    same = other_name(got, names)
    hint = f" Did you mean {same!r}?" if same else did_you_mean(str(got), names)
    return f"{argument} must be one of {choice}, got {got!r}.{hint}"


def other_name(got: object, names: Iterable[str]) -> str | None:
    """Returns the name among `names` that `got` writes in another way, such as "TensorRT" or "ort"; `None` if none."""
    plain = "".join(c for c in str(got).lower() if c.isalnum())
    plain = _OTHER_NAMES.get(plain, plain)
    return next((name for name in names if name == plain), None)


def must_be_path(argument: str, got: object, hint: str = "") -> str:
    """Returns the error message for an argument that is no path; `hint` says what to pass instead."""
    return f"{argument} must be a path, a str or os.PathLike, got {type(got).__name__}.{hint}"


def is_path(x: object) -> bool:
    """Returns whether an argument can be the path of a file."""
    return isinstance(x, str | os.PathLike)


def error_in_one_line(error: Exception) -> str:
    """Returns the class of an error and what is wrong, in one line.

    Keras writes what is wrong in bold, between the name of the layer and its arguments. TensorFlow writes it after a
    traceback, in a line that starts with the class of the error. Otherwise it is the first line.
    """
    message = _message(error).strip()
    bold = _BOLD.search(message)
    if bold:
        return f"{type(error).__name__}: {' '.join(bold[1].split())}"
    lines = [line.strip() for line in f"{type(error).__name__}: {message}".split("\n")]
    named = [line for line in lines[1:] if re.match(r"\w+Error: ", line)]
    return named[0] if named and lines[0].endswith("in user code:") else lines[0]


def _message(error: Exception) -> str:
    """The text of an error; `str` of a KeyError is the representation of a key."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def what_is_wrong(error: Exception) -> str:
    """Returns what is wrong in one line, without the class of the error.

    Examples:
        >>> what_is_wrong(ValueError("Exception when calling Dense.call().\\n\\n\\x1b[1mwrong shape\\x1b[0m"))
        'wrong shape'
    """
    return error_in_one_line(error).partition(": ")[2] or type(error).__name__


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """In the context, an error in a layer names the call and what is wrong, without colours and a list of arguments.

    The error keeps its class, if the class takes one message, and has Keras' error as its cause.
    """
    try:
        yield
    except Exception as error:
        wrapped = re.search(r"when calling (.+?)\.\n", _message(error))
        if not (wrapped and _BOLD.search(_message(error))):
            raise
        message = f"{wrapped[1]}: {what_is_wrong(error)}"
        try:
            plain: Exception = type(error)(message)
        except TypeError:
            plain = RuntimeError(message)
        raise plain from error
