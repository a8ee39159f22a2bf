"""`copy_of`: a layer made again from its config, with the same functions.

A config holds a function as its name or its bytecode. Keras finds a name only if it is registered, and bytecode loses
the globals of its module: `np`, `keras.ops`, constants. In the same process neither is needed, so a copy gets the
function object itself.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras

from tensorflow_quantization.model.keras_classes import is_of_keras
from tensorflow_quantization.model.keras_internals import argument_of, trusting_configs
from tensorflow_quantization.model.weights import float32_array


def copy_of(operation: keras.Operation) -> keras.Operation:
    """Returns a new layer or operation made from the config of `operation`. It calls the same function objects.

    Raises:
        Exception: of any type; the class cannot be made from its config.
    """
    functions: dict[str, Any] = {}
    with warnings.catch_warnings():
        # Keras warns of the bytecode in the config, which is not used.
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        config, plain = _config(operation), _config(operation)  # `from_config` may change its argument
    config = _with_functions(config, operation, functions)
    # The config comes from a layer in this process, so its functions are trusted.
    with trusting_configs(), keras.saving.CustomObjectScope(functions):
        try:
            return type(operation).from_config(config)
        except Exception:
            # A class may look up the names in its config in a table of its own.
            return type(operation).from_config(plain)


def _config(operation: keras.Operation) -> dict[str, Any]:
    """Returns the config of an operation, with values for variables.

    A layer may replace the attribute that holds an argument by a variable of this value, and its config has what the
    attribute holds. A copy that gets the variable would share it.
    """

    def value(x: Any) -> Any:
        if not isinstance(x, keras.Variable):
            return x
        array = float32_array(x)
        return array.item() if array.size == 1 else array

    return {key: value(x) for key, x in operation.get_config().items()}


def _with_functions(config: dict[str, Any], holder: Any, functions: dict[str, Any]) -> dict[str, Any]:
    """Returns the config of `holder`, a layer or another object of Keras, with names for the functions in it.

    Args:
        config: the config.
        holder: the object.
        functions: the functions by name; entries are added.
    """
    named = {key: _named(value, argument_of(holder, key), functions) for key, value in config.items()}
    if isinstance(holder, keras.layers.Lambda) and callable(holder.mask):
        named["mask"] = holder.mask  # Keras passes it from the config to `__init__` without reading it
    return named


def _named(value: Any, argument: Any, functions: dict[str, Any]) -> Any:
    """Returns the value in a config of an argument, which may be a function or hold functions."""
    if value is argument or argument is None or isinstance(argument, type):
        return value
    if hasattr(argument, "get_config"):
        inner = value.get("config") if isinstance(value, dict) else None
        return {**value, "config": _with_functions(inner, argument, functions)} if isinstance(inner, dict) else value
    if callable(argument):
        if isinstance(value, str) and (is_of_keras(argument) or not hasattr(keras.activations, value)):
            functions.setdefault(value, argument)
            return value
        name = f"function_{len(functions)}_of_this_process"
        functions[name] = argument
        return {"class_name": "function", "config": name, "module": "builtins", "registered_name": name}
    if isinstance(value, dict) and isinstance(argument, dict):
        return {key: _named(v, argument.get(key), functions) for key, v in value.items()}
    if isinstance(value, list | tuple) and isinstance(argument, list | tuple) and len(value) == len(argument):
        return type(value)(_named(v, a, functions) for v, a in zip(value, argument, strict=True))
    return value
