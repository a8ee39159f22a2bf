"""`QuantizationSpec`: the user's settings for single layers or classes of layers."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any

from tensorflow_quantization.model.keras_classes import resolve_alias
from tensorflow_quantization.quantizers.scheme import WIDE_BITS, check_bits, check_block_size
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.text.tables import text_table

_GLOB = frozenset("*?[")


def _is_wide(bits: Any) -> bool:
    return isinstance(bits, int) and bits == WIDE_BITS


def same_bits(activation_bits: int | None, input_bits: int | None, of: str = "") -> int | None:
    """The value of `activation_bits`, given by this name or by its older name `input_bits`.

    Args:
        activation_bits, input_bits: 2 to 8, or 16 for a whole model; `None`: not given.
        of: the owner of the argument as the error message names it, " of 'conv'" for example; "" for a whole model.

    Raises:
        ValueError: one is out of range, or both are given and differ.
    """
    for bits, argument in ((activation_bits, "activation_bits"), (input_bits, "input_bits")):
        if bits is not None and (of or not _is_wide(bits)):
            check_bits(bits, f"{argument}{of}", "" if of else f", or {WIDE_BITS} with target='litert'")
    if None not in (activation_bits, input_bits) and activation_bits != input_bits:
        raise ValueError(
            f"activation_bits{of} is {activation_bits}, but input_bits, its older name, is {input_bits}. "
            "Pass activation_bits only."
        )
    return input_bits if activation_bits is None else activation_bits


@dataclass(init=False)
class LayerConfig:
    """The settings for one layer, for every layer of one class, or for one input of the model.

    Attributes can be assigned; each assignment is checked like the constructor's arguments.

    Examples:
        >>> entry = LayerConfig("conv*", weight_bits=4)
        >>> entry.matches("conv1"), entry.matches("dense")
        (True, False)

    Attributes:
        name: a layer name, a path through nested models ("backbone/conv1"), or a glob pattern that matches either
            ("conv2_block*_conv"). With `is_keras_class`, a class name. The name of a model input (an `InputLayer`)
            gives this input one quantizer for all its readers, or with `quantize_input=False` none.
        is_keras_class: `name` is a class, and the entry holds for its subclasses too. The class is a class of
            `keras.layers` ("Dense"), an alias there ("MaxPool2D"), or a custom class with another name. `False` by
            default.
        quantize_input: quantize what the layer reads; `True` by default. With `False` the layer reads floats, also if
            the target puts the quantizer at the layer before; other readers of this tensor keep their integers.
        quantize_weight: quantize the weights, if the layer has any; `True` by default.
        quantization_index: the indices of the inputs to quantize, counted from 0, as a list of integers; `None`
            (default): all inputs if `quantize_input`. A list wins over `quantize_input`.
        weight_bits: bits of the weights, 2 to 8; `None` (default): the `weight_bits` of `quantize_model`.
        activation_bits: bits of what the layer reads, 2 to 8, wherever the quantizer is; `None` (default): the
            `activation_bits` of `quantize_model`. If several layers share a quantizer, the largest number counts. These
            are also the bits of the output if `quantize_output`, or if no other layer reads it in integers.
            `input_bits` is an older name.
        quantize_output: quantize the output too; `False` by default.
        block_size: as many consecutive inputs of a product share a scale, see `quantize_model`: a power of two of at
            least 16, or 0 for no blocks; `None` (default): the `block_size` of `quantize_model`. With blocks, the layer
            reads floats, and `weight_bits` is 4 or 8, by default 4.

    Raises:
        TypeError: a name is not a string, a flag is not a bool, or an index is not an integer.
        ValueError: bits or a block size are out of range, or `activation_bits` and `input_bits` differ.
        AttributeError: an unknown attribute is assigned.
    """

    name: str
    is_keras_class: bool
    quantize_input: bool
    quantize_weight: bool
    quantization_index: list[int] | None
    weight_bits: int | None
    activation_bits: int | None
    quantize_output: bool
    block_size: int | None

    @suggests_arguments
    def __init__(
        self,
        name: str,
        is_keras_class: bool = False,
        quantize_input: bool = True,
        quantize_weight: bool = True,
        quantization_index: int | Iterable[int] | None = None,
        weight_bits: int | None = None,
        activation_bits: int | None = None,
        quantize_output: bool = False,
        block_size: int | None = None,
        *,
        input_bits: int | None = None,
    ):
        self.name = name
        self.is_keras_class = is_keras_class
        self.quantize_input = quantize_input
        self.quantize_weight = quantize_weight
        self.quantization_index = quantization_index  # type: ignore[assignment]  # becomes a list
        self.weight_bits = weight_bits
        self.activation_bits = same_bits(activation_bits, input_bits, f" of {name!r}")
        self.quantize_output = quantize_output
        self.block_size = block_size

    def __setattr__(self, attribute: str, value: Any) -> None:
        if attribute not in _CHECKS:
            raise AttributeError(
                f"A LayerConfig has no attribute {attribute!r}.{did_you_mean(attribute, list(_CHECKS))}"
            )
        of = "" if attribute == "name" else f" of {self.name!r}"
        super().__setattr__(attribute, _CHECKS[attribute](value, f"{attribute}{of}"))

    @property
    def input_bits(self) -> int | None:
        """An older name of `activation_bits`."""
        return self.activation_bits

    @input_bits.setter
    def input_bits(self, bits: int | None) -> None:
        self.activation_bits = bits

    @property
    def is_pattern(self) -> bool:
        return not _GLOB.isdisjoint(self.name)

    def matches(self, name: str, path: str | None = None) -> bool:
        """Whether this entry matches a layer by name; `False` for an entry by class.

        Args:
            name: the name of the layer.
            path: its path through nested models; `None` (default): the same as `name`.
        """
        if self.is_keras_class:
            return False
        return any(
            candidate == self.name or (self.is_pattern and fnmatch.fnmatchcase(candidate, self.name))
            for candidate in (name, path or name)
        )


class QuantizationSpec:
    """A list of `LayerConfig` entries, filled by `add`.

    If several entries match a layer, an exact name wins over a glob pattern, and a glob pattern wins over a class.
    Among entries of the same kind, the last added wins; among classes, the nearest base class of the layer.

    Examples:
        >>> spec = QuantizationSpec()
        >>> spec.add("Conv2D", is_keras_class=True, weight_bits=4)
        >>> spec.add("scores", quantize_input=False, quantize_weight=False)
        >>> [layer.name for layer in describe(quantize_model(model, quantization_spec=spec)) if layer.quantized]
        ['quant_conv', 'quant_pool']

    Attributes:
        layers: the entries as a list of `LayerConfig`, in the order in which they were added.
    """

    def __init__(self):
        self.layers: list[LayerConfig] = []

    @suggests_arguments
    def add(
        self,
        name: str | Sequence[str],
        is_keras_class: bool | Sequence[bool] = False,
        quantize_input: bool | Sequence[bool] = True,
        quantize_weight: bool | Sequence[bool] = True,
        quantization_index: int | Sequence[Any] | None = None,
        *,
        weight_bits: int | Sequence[int | None] | None = None,
        activation_bits: int | Sequence[int | None] | None = None,
        quantize_output: bool | Sequence[bool] = False,
        block_size: int | Sequence[int | None] | None = None,
        input_bits: int | Sequence[int | None] | None = None,
    ) -> None:
        """Add one entry, or with a list of names one entry for each name.

        With a list of names, every other argument is one value for all names, or a list with one value for each name.
        The values of `quantization_index` are then lists of indices or `None`: [[1], [0], None].

        Args:
            name: a layer name, path, glob pattern or class name, or a list of them; see `LayerConfig`.
            is_keras_class: `name` is a class; `False` by default.
            quantize_input: quantize the inputs; `True` by default.
            quantize_weight: quantize the weights, if the layer has any; `True` by default.
            quantization_index: the indices of the inputs to quantize; `None` (default): all inputs.
            weight_bits, activation_bits: 2 to 8; `None` (default): the bits of the `quantize_model` call.
            quantize_output: quantize the output too; `False` by default.
            block_size: the inputs that share a scale of the weights, a power of two of at least 16, or 0 for no blocks;
                `None` (default): the block size of the `quantize_model` call.
            input_bits: an older name of `activation_bits`.

        Raises:
            ValueError: lists have unequal lengths, bits or a block size are out of range, or `activation_bits` and
                `input_bits` differ.
            TypeError: a name is not a string, a flag is not a bool, or an index is not an integer.
        """
        arguments = {
            "is_keras_class": is_keras_class,
            "quantize_input": quantize_input,
            "quantize_weight": quantize_weight,
            "quantization_index": quantization_index,
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "quantize_output": quantize_output,
            "block_size": block_size,
            "input_bits": input_bits,
        }
        if isinstance(name, str) or not isinstance(name, Iterable):
            entries = [LayerConfig(name, **arguments)]  # type: ignore[arg-type]  # which the entry checks
        else:
            names = list(name)
            columns = [_column(argument, value, names) for argument, value in arguments.items()]
            rows = [dict(zip(arguments, row, strict=True)) for row in zip(*columns, strict=True)]
            entries = [LayerConfig(name, **row) for name, row in zip(names, rows, strict=True)]
        self.layers += entries

    def find(self, name: str, class_names: Sequence[str] = (), path: str | None = None) -> LayerConfig | None:
        """The entry that decides on a layer; `None` if no entry matches.

        Args:
            name: the name of the layer.
            class_names: the names of its class and its base classes, nearest first; empty (default): only entries by
                name are searched.
            path: its path through nested models; `None` (default): the same as `name`.
        """
        return SpecIndex(self).find(name, class_names, path)

    def copy(self) -> QuantizationSpec:
        """A new spec with copies of the entries."""
        new = QuantizationSpec()
        new.layers = [replace(entry) for entry in self.layers]
        return new

    def __str__(self) -> str:
        titles = [field.name for field in fields(LayerConfig)]
        return text_table(titles, [[getattr(entry, title) for title in titles] for entry in self.layers])

    def __repr__(self) -> str:
        return f"<QuantizationSpec of {len(self.layers)} entries>"

    def __bool__(self) -> bool:
        return bool(self.layers)


class SpecIndex:
    """A spec indexed by name and class. A look-up takes the same time for any number of entries without patterns."""

    def __init__(self, spec: QuantizationSpec):
        by_name = [entry for entry in spec.layers if not entry.is_keras_class]
        self._exact = {entry.name: entry for entry in by_name if not entry.is_pattern}
        self._patterns = [entry for entry in reversed(by_name) if entry.is_pattern]
        by_class = [entry for entry in spec.layers if entry.is_keras_class]
        self._classes = {name: entry for entry in by_class for name in (entry.name, resolve_alias(entry.name))}

    def find(self, name: str, class_names: Sequence[str] = (), path: str | None = None) -> LayerConfig | None:
        """The entry that decides on a layer; `None` if no entry matches.

        Args:
            name: the name of the layer.
            class_names: the names of its class and its base classes, nearest first, as
                `model.keras_classes.class_names_in_spec` returns them; empty: only entries by name are searched.
            path: the names of the nested models around the layer and its own name, joined by "/".
        """
        for candidate in (path, name):
            if candidate in self._exact:
                return self._exact[candidate]
        for entry in self._patterns:
            if entry.matches(name, path):
                return entry
        return next((self._classes[c] for c in class_names if c in self._classes), None)


def _column(argument: str, value: Any, names: list[str]) -> list[Any]:
    """The values of an argument, one for each name."""
    if not isinstance(value, (list, tuple)):
        return [value] * len(names)
    if len(value) != len(names):
        raise ValueError(
            f"QuantizationSpec.add got {len(names)} names but {len(value)} values of {argument!r}. Pass one value "
            "for all names, or a list with one value for each name."
        )
    return list(value)


def _string(value: Any, what: str) -> str:
    if isinstance(value, type):
        raise TypeError(
            f"A layer or class name must be a string, got the class {value.__name__}. Pass its name, with "
            f"is_keras_class=True: {value.__name__!r}."
        )
    if not isinstance(value, str):
        raise TypeError(f"A layer or class name must be a string, got {value!r}. Pass layer.name for a layer.")
    return value


def _flag(value: Any, what: str) -> bool:
    if value not in (True, False):
        raise TypeError(f"{what} must be True or False, got {value!r}.")
    return bool(value)


def _indices(value: Any, what: str) -> list[int] | None:
    if value is None:
        return None
    indices = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(i, Integral) and not isinstance(i, bool) for i in indices):
        raise TypeError(
            f"{what} must be integers, got {indices!r}. With a list of names, pass one list for each name: "
            "[[1], [0], None]."
        )
    if any(i < 0 for i in indices):
        raise ValueError(f"{what} must be 0 or greater, got {indices!r}: inputs are counted from 0, from the first.")
    return [int(i) for i in indices]


def _bits(value: Any, what: str) -> int | None:
    return None if value is None else check_bits(value, what)


def _block_size(value: Any, what: str) -> int | None:
    if value is None or (value == 0 and not isinstance(value, bool)):
        return value
    return check_block_size(value, what)


#: For each attribute of `LayerConfig`, a function that checks a value; the second argument names it in the error.
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "name": _string,
    "is_keras_class": _flag,
    "quantize_input": _flag,
    "quantize_weight": _flag,
    "quantization_index": _indices,
    "weight_bits": _bits,
    "activation_bits": _bits,
    "input_bits": _bits,
    "quantize_output": _flag,
    "block_size": _block_size,
}
