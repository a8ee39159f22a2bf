"""`OwnWeight`: a layer that returns a weight.

The code of a custom layer may compute with a weight of its own, such as a class token or a table of positions. As a
tensor that a layer returns, the weight is a part of the graph like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from tensorflow_quantization.model.keras_internals import is_autocast, own_parameters, own_variables, sublayers
from tensorflow_quantization.text.warn import converting


@keras.saving.register_keras_serializable(package="tensorflow_quantization")
class OwnWeight(keras.layers.Layer):
    """Returns its weight, whatever its input is.

    Examples:
        >>> token = OwnWeight((1, 1, 4), name="class_token")
        >>> token(np.zeros((2, 8), "float32")).shape
        (1, 1, 4)

    Args:
        shape: tuple of ints, the shape of the weight.
        trains: bool, whether the weight is made to be trained; default `True`.
        regularizer, constraint: of the weight, as `add_weight` takes them; default none.
        **kwargs: of a `keras.layers.Layer`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        trains: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.shape = tuple(shape)
        self.trains = trains
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        self.supports_masking = True  # the mask of the input says nothing about the weight

    def build(self, _):
        self.value = self.add_weight(
            name="value",
            shape=self.shape,
            initializer="zeros",
            dtype=self.variable_dtype,
            trainable=self.trains,
            regularizer=self.regularizer,
            constraint=self.constraint,
        )

    def call(self, inputs):
        return keras.ops.cast(self.value, self.compute_dtype)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.shape, self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "trains": self.trains,
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }


class OwnWeights:
    """What a layer's code computes with besides its inputs and sublayers, as `OwnWeight` layers.

    Attributes:
        layers: the `OwnWeight` layers by the id of the variable or array that each stands for.

    Args:
        layer: a built layer.
        constants: whether the arrays among the attributes of the layer, and the arrays that its code passes to its
            sublayers, count as weights. These never train, and what the sublayers compute becomes part of the graph.
            Default `False`.
    """

    def __init__(self, layer: keras.layers.Layer, constants: bool = False):
        self._owner = layer
        self._constants = constants
        # What the code passes to sublayers, by its bytes: each time that it is traced, it makes the arrays anew.
        self._passed: dict[tuple[Any, ...], tuple[OwnWeight, np.ndarray]] = {}
        self._held: list[Any] = []  # keeps the ids valid
        self.layers: dict[int, OwnWeight] = {}
        self._taken = {inner.name for inner in sublayers(layer)}
        for variable in own_variables(layer):
            self._add(variable, variable.name)
        if constants:
            for name, value in self._attributes():
                if _is_constant(value):
                    with converting():
                        array = keras.ops.convert_to_numpy(value)
                    self._add(value, name, array)

    def _attributes(self) -> list[tuple[str, Any]]:
        """The attributes that the class of the layer added to those that every layer has."""
        of_every_layer = vars(keras.layers.Layer())
        return [(name, value) for name, value in vars(self._owner).items() if name not in of_every_layer]

    def _add(self, value: Any, name: str, array: np.ndarray | None = None) -> None:
        while name in self._taken:
            name += "_weight"
        self._taken.add(name)
        dtype = keras.backend.standardize_dtype(value.dtype)
        if array is not None:
            layer = OwnWeight(array.shape, trains=False, name=name, dtype=dtype)
            layer.build(None)
            layer.value.assign(array)
        else:
            casts = is_autocast(value) and self._owner.autocast and dtype == self._owner.variable_dtype
            trains = any(value is x for x in own_parameters(self._owner))
            layer = OwnWeight(
                value.shape,
                *(trains, value.regularizer, value.constraint),
                name=name,
                dtype=self._owner.dtype_policy if casts else dtype,
                trainable=value.trainable or not trains,
            )
            layer.value = value
        layer.built = True
        self._held.append(value)
        self.layers[id(value)] = layer

    @contextlib.contextmanager
    def as_tensors(self, tensor: keras.KerasTensor) -> Iterator[None]:
        """Within the context, the attributes of the layer are the tensors that the `OwnWeight` layers return.

        Args:
            tensor: a symbolic tensor of the graph that is traced.
        """
        returned: dict[int, keras.KerasTensor] = {}

        def replaced(value: Any) -> Any:
            if id(value) in self.layers:
                if id(value) not in returned:
                    returned[id(value)] = self.layers[id(value)](tensor)
                return returned[id(value)]
            if isinstance(value, list | tuple) and any(id(x) in self.layers for x in value):
                return [replaced(x) for x in value]
            if isinstance(value, dict) and any(id(x) in self.layers for x in value.values()):
                return {key: replaced(x) for key, x in value.items()}
            return value

        def symbolic(args: tuple[Any, ...]) -> tuple[Any, ...]:
            if any(isinstance(x, keras.KerasTensor) for x in tree.flatten(args)):
                return args
            return tree.map_structure(lambda x: self._passed_as_tensor(x, tensor), args)

        attributes = vars(self._owner)
        before = (
            {name: value for name, value in self._attributes() if replaced(value) is not value} if self.layers else {}
        )
        try:
            attributes.update((name, replaced(value)) for name, value in before.items())
            with _changing_arguments(sublayers(self._owner, recursive=False) if self._constants else [], symbolic):
                yield
        finally:
            attributes.update(before)

    def _passed_as_tensor(self, value: Any, tensor: keras.KerasTensor) -> Any:
        """The tensor that stands for an array that the code passes to a sublayer; other objects unchanged."""
        if not _is_constant(value):
            return value
        with converting():
            array = keras.ops.convert_to_numpy(value)
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in self._passed:
            name = f"constant_{len(self._passed)}"
            layer = OwnWeight(array.shape, trains=False, name=name, dtype=keras.backend.standardize_dtype(value.dtype))
            self._passed[key] = layer, array
        return self._passed[key][0](tensor)

    def set_passed(self) -> None:
        """Sets the layers that stand for what the code passed to sublayers. Variables have no values in a trace."""
        for layer, array in self._passed.values():
            layer.value.assign(array)


@contextlib.contextmanager
def _changing_arguments(layers: Sequence[Any], change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Iterator[None]:
    """Within the context, the layers are called with the positional arguments that `change` returns."""
    classes = [type(layer) for layer in layers]

    def changing(cls: type) -> type:
        def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
            return cls.__call__(self, *change(args), **kwargs)

        return type(cls)(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})

    try:
        for layer, cls in zip(layers, classes, strict=True):
            object.__setattr__(layer, "__class__", changing(cls))
        yield
    finally:
        for layer, cls in zip(layers, classes, strict=True):
            object.__setattr__(layer, "__class__", cls)


def _is_constant(value: Any) -> bool:
    if isinstance(value, keras.Variable | keras.KerasTensor) or not getattr(value, "shape", None):
        return False  # a number, as an array without axes too, may be a number in Python for the code
    return isinstance(value, np.ndarray) or keras.ops.is_tensor(value)
