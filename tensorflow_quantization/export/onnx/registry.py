"""Which function writes which layer: the registry that `@emitter` fills, and the lookup in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tensorflow_quantization.export.onnx.values import Order, Value, channels_first, keras_order
from tensorflow_quantization.model.keras_classes import computes_differently, stands_for

_REGISTRY: dict[Any, Emitter] = {}

#: Gets the layer and its input values; the order wanted of each, `None` to take them as they come.
LayoutRule = Callable[[Any, Sequence[Value]], list[Order] | None]


@dataclass(frozen=True)
class Emitter:
    """A registered function and how it wants its inputs stored; see `emitter`."""

    function: Callable[..., Any]
    layout: str | LayoutRule
    structural: bool

    def orders(self, operation: Any, values: Sequence[Value]) -> list[Order] | None:
        """The order wanted of each input; `None` to take them as they come."""
        if callable(self.layout):
            return self.layout(operation, values)
        if self.layout == "channels_first":
            # An operation of keras.ops may leave it open.
            last = getattr(operation, "data_format", "channels_last") or keras.config.image_data_format()
            axis = -1 if last == "channels_last" else 1
            return [channels_first(v.rank, axis) if v.rank > 2 else keras_order(v.rank) for v in values]
        if self.layout == "keras":
            return [keras_order(v.rank) for v in values]
        if len({(v.order, v.flattened) for v in values}) > 1:
            return _common_orders(values)
        return None


def _common_orders(values: Sequence[Value]) -> list[Order]:
    """One order for operands of one rank: that of the first one that is not in Keras' order and not a mere vector.

    An image stored channels first usually meets images stored so, or gates of size 1 x 1, which a Reshape reorders.
    """
    rank = max(v.rank for v in values)
    reordered = [v.order for v in values if v.rank == rank and v.order != keras_order(rank)]
    return [reordered[0] if reordered and v.rank == rank else keras_order(v.rank) for v in values]


def emitter(*keys: Any, layout: str | LayoutRule = "keras", structural: bool = False) -> Callable:
    """Register a function that writes a layer, an operation of `keras.ops` or an activation as ONNX.

    The function takes an `Emission` (what it writes with), the layer, and then what the layer's `call` takes, with a
    `Value` in the place of each tensor. It returns the tensor that it made: what `Emission.op` returned, or a `Value`
    where it has to tell how that is stored; several as a list.

    >>> @emitter(MyLayer)
    ... def emit_my_layer(e, layer, x):
    ...     return e.op("Mul", x, e.weight("gain"))

    Args:
        keys: classes, functions (activations), or names of classes. A class also stands for its subclasses, but for
            those that override how they compute.
        layout: how it wants its inputs stored. "keras": as Keras has them. "channels_first": channels, by the layer's
            `data_format`, after the batch axis. "any": it does not care, as long as all inputs are stored alike. Or a
            function of the layer and its input values that returns an order for each, or `None`.
        structural: also use it for subclasses that override `call`.
    """
    if isinstance(layout, str) and layout not in ("keras", "channels_first", "any"):
        raise ValueError(f"layout must be 'keras', 'channels_first', 'any' or a function, got {layout!r}.")

    def register(function: Callable) -> Callable:
        entry = Emitter(function, layout, structural)
        _REGISTRY.update(dict.fromkeys(keys, entry))
        return function

    return register


def is_registered(cls: type) -> bool:
    """Whether a class has an emitter, of its own or of a base that computes the same."""
    return any(
        (_REGISTRY.get(base) or _by_name(base)) is not None and not computes_differently(cls, base)
        for base in cls.__mro__
    )


def find_emitter(operation: Any) -> Emitter | None:
    """The emitter of a layer, operation or activation function; `None` if it has none."""
    if not isinstance(operation, type) and operation.__class__.__name__ in ("function", "builtin_function_or_method"):
        return _REGISTRY.get(operation)
    cls = type(operation)
    for base in cls.__mro__:
        entry = _REGISTRY.get(base) or _by_name(base)
        if entry is not None:
            return entry if entry.structural or not computes_differently(cls, base) else None
    return None


def _by_name(cls: type) -> Emitter | None:
    entry = _REGISTRY.get(cls.__name__)
    return entry if entry is not None and stands_for(entry.function, cls) else None
