"""The registry of emitters: `@emitter` adds functions that write layers, `find_emitter` looks them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tensorflow_quantization.export.onnx.values import Order, Value, channels_first, keras_order
from tensorflow_quantization.model.keras_classes import computes_differently, stands_for

_REGISTRY: dict[Any, Emitter] = {}
#: Activation functions of TensorFlow by their names, with those of Keras that compute the same.
_EQUAL = {name: name for name in ("elu", "relu", "relu6", "selu", "sigmoid", "softplus", "softsign", "tanh")}
_EQUAL["softmax_v2"] = "softmax"  # the name of `tf.nn.softmax`

#: From the layer and its input values to the order of axes that each input needs; `None` if any order will do.
LayoutRule = Callable[[Any, Sequence[Value]], list[Order] | None]


@dataclass(frozen=True)
class Emitter:
    """A registered function and the layout of its inputs; see `emitter`."""

    function: Callable[..., Any]
    layout: str | LayoutRule
    structural: bool

    def orders(self, operation: Any, values: Sequence[Value]) -> list[Order] | None:
        """The order of axes that each input needs; `None` if the inputs can stay as they are."""
        if callable(self.layout):
            return self.layout(operation, values)
        if self.layout == "channels_first":
            # Operations of keras.ops may have data_format=None: Keras' default.
            last = getattr(operation, "data_format", "channels_last") or keras.config.image_data_format()
            axis = -1 if last == "channels_last" else 1
            return [channels_first(v.rank, axis) if v.rank > 2 else keras_order(v.rank) for v in values]
        if self.layout == "keras":
            return [keras_order(v.rank) for v in values]
        if len({(v.order, v.flattened) for v in values}) > 1:
            return _common_orders(values)
        return None


def _common_orders(values: Sequence[Value]) -> list[Order]:
    """One order for all operands: the order of the first operand of full rank that is not in Keras' order.

    The other operands are usually images in the same order, or gates of size 1 x 1, which a Reshape reorders.
    """
    rank = max(v.rank for v in values)
    reordered = [v.order for v in values if v.rank == rank and v.order != keras_order(rank)]
    return [reordered[0] if reordered and v.rank == rank else keras_order(v.rank) for v in values]


def emitter(*keys: Any, layout: str | LayoutRule = "keras", structural: bool = False) -> Callable:
    """A decorator that registers a function as the ONNX form of a layer, operation of `keras.ops` or activation.

    The function is called with an `Emission`, which appends ONNX nodes, with the layer, and with the arguments of the
    layer's `call`, in which each tensor is a `Value`. The function returns the result of `Emission.op`, or a `Value`
    if the result has its axes in an order other than the first input, or a list if the layer has several outputs.

    Args:
        *keys: classes, functions (activations), or names of classes. A class includes its subclasses that do not
            override `call`.
        layout: the order of the axes in which the function needs its inputs. Default: "keras".

            - "keras": as in Keras.
            - "channels_first": (batch, channels, ...); the layer's `data_format` says which axis holds the channels.
            - "any": any order, the same for all inputs. Use it for elementwise layers: no Transpose is needed.
            - a function of the layer and the list of its input values. It returns a list with one order for each
              input, see `Value.order`, or `None` for any order.

        structural: whether the function also serves subclasses that override `call`. Default: `False`.

    Returns:
        A decorator. It returns the function unchanged.

    Raises:
        ValueError: `layout` is unknown.

    Examples:
        >>> @emitter(MyLayer)
        ... def emit_my_layer(e, layer, x):
        ...     return e.op("Mul", x, e.weight("gain"))
    """
    if isinstance(layout, str) and layout not in ("keras", "channels_first", "any"):
        raise ValueError(f"layout must be 'keras', 'channels_first', 'any' or a function, got {layout!r}.")

    def register(function: Callable) -> Callable:
        entry = Emitter(function, layout, structural)
        _REGISTRY.update(dict.fromkeys(keys, entry))
        return function

    return register


def is_registered(cls: type) -> bool:
    """Whether a class has an emitter, or inherits one from a base class and does not override its `call`."""
    return any(
        (_REGISTRY.get(base) or _by_name(base)) is not None and not computes_differently(cls, base)
        for base in cls.__mro__
    )


def find_emitter(operation: Any) -> Emitter | None:
    """The emitter of a layer, operation or activation function; `None` if there is none."""
    if not isinstance(operation, type) and operation.__class__.__name__ in ("function", "builtin_function_or_method"):
        return _REGISTRY.get(operation) or _REGISTRY.get(_in_keras(operation))
    cls = type(operation)
    for base in cls.__mro__:
        entry = _REGISTRY.get(base) or _by_name(base)
        if entry is not None:
            return entry if entry.structural or not computes_differently(cls, base) else None
    return None


def _in_keras(function: Any) -> Any:
    """The activation function of Keras that computes what `tf.nn.relu`, for example, does; `None` for any other."""
    of_tensorflow = str(function.__module__).partition(".")[0] == "tensorflow"
    name = _EQUAL.get(function.__name__) if of_tensorflow else None
    return None if name is None else getattr(keras.activations, name)


def _by_name(cls: type) -> Emitter | None:
    entry = _REGISTRY.get(cls.__name__)
    return entry if entry is not None and stands_for(entry.function, cls) else None
