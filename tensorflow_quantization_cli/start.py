"""What is done before a command works: the package is imported quietly, a model is loaded, warnings get one line."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import runpy
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorflow_quantization_cli import results

if TYPE_CHECKING:
    import keras

#: The backends of Keras that train.
_BACKENDS = ["tensorflow", "jax", "torch"]
#: The signals that end a process: of `kill`, and of a terminal that is closed.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PACKAGE = Path(__file__).parents[1] / "tensorflow_quantization"


def package() -> Any:
    """Import the package, and with it Keras and a backend."""
    with quiet_backend():
        import tensorflow_quantization
    return tensorflow_quantization


def load(path: str, options: argparse.Namespace) -> keras.Model:
    """Returns the model in a file, with the options of `arguments.add_loading`; see `load_model`.

    Raises:
        ImportError: a module of `--import` cannot be imported.
    """
    package()
    from tensorflow_quantization.model.files import load_model

    for module in options.modules:
        _import(module)
    return load_model(path, trusted=options.trust)


def _import(module: str) -> None:
    """Import a module, also from the current folder."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        importlib.import_module(module)
    except Exception as error:  # the module may raise anything
        hint = f" Pass {module[:-3]}." if module.endswith(".py") else ""
        raise ImportError(f"--import {module} failed: {type(error).__name__}: {error}.{hint}") from error
    finally:
        sys.path.remove(here)


def version() -> str:
    """The version of the package, read without importing it."""
    return runpy.run_path(str(_PACKAGE / "_version.py"))["__version__"]


def messages() -> dict[str, Any]:
    """The names in `text.messages`, without importing the package."""
    return runpy.run_path(str(_PACKAGE / "text" / "messages.py"))


@contextmanager
def quiet_backend() -> Iterator[None]:
    """A context in which TensorFlow's libraries write no notes to stderr when Keras is first imported.

    Errors of the import are raised as usual, signals take effect after it. A TF_CPP_MIN_LOG_LEVEL that the user set is
    not changed.

    Raises:
        ValueError: the environment variable KERAS_BACKEND is not the name of a backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" not in sys.modules:
        _check_backend(os.environ.get("KERAS_BACKEND"))
    with signals_after(), contextlib.nullcontext() if "keras" in sys.modules else _without_stderr():
        yield


def _check_backend(name: str | None) -> None:
    """Raises: ValueError: Keras has no such backend that trains."""
    if name and name not in _BACKENDS:
        hint = messages()["did_you_mean"](name, _BACKENDS)
        raise ValueError(f"The environment variable KERAS_BACKEND is {name!r}, not tensorflow, jax or torch.{hint}")


@contextlib.contextmanager
def signals_after() -> Iterator[None]:
    """A context at whose end SIGINT, SIGTERM and SIGHUP take effect; a second signal does at once.

    An exception that a signal raises while C++ libraries are imported, or in their garbage collection, may be lost.
    """
    received: list[int] = []
    handled = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    # Python handles signals in its main thread only; what is ignored, or ends the process, stays so.
    ours = threading.current_thread() is threading.main_thread()
    before = {number: handler for number, handler in handled.items() if ours and callable(handler)}

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    # The libraries write some notes before they read the level, and not through Python's sys.stderr.
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def seed(number: int) -> None:
    """Seed Python, NumPy and the backend. Keras imports TensorFlow for it on any backend, which writes notes."""
    import keras

    with _without_stderr() if "tensorflow" not in sys.modules else contextlib.nullcontext():
        keras.utils.set_random_seed(number)


def _is_no_note_on_tracing(record: logging.LogRecord) -> bool:
    return "tf.function retracing" not in record.getMessage()


@contextmanager
def plain_warnings() -> Iterator[None]:
    """A context in which a warning for the user is one line on stderr, without a place in the source code.

    It is given once: Keras repeats what it says of a model for each copy. TensorFlow's note that functions are traced
    again is left out: the command has a model for each stage.
    """
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_is_no_note_on_tracing)
    with contextlib.ExitStack() as stack:
        stack.callback(logger.removeFilter, _is_no_note_on_tracing)
        stack.enter_context(warnings.catch_warnings())
        shown, given = warnings.showwarning, set()

        def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):
                if str(message) not in given:
                    results.warn(message)
                given.add(str(message))
            else:
                shown(message, category, *place, **more)

        warnings.showwarning = show
        yield
