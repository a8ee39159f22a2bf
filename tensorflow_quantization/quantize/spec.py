"""`QuantizationSpec`: what the user asks for, layer by layer."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tensorflow_quantization.model.keras_classes import resolve_alias
from tensorflow_quantization.quantizers.scheme import check_bits
from tensorflow_quantization.text.tables import text_table

_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class LayerConfig:
    """What to do with one layer, or with every layer of one class.

    Attributes:
        name: a layer name, a path through nested models ("backbone/conv1"), a glob pattern over either
            ("conv2_block*_conv"), or with `is_keras_class` a class name ("Dense").
        is_keras_class: `name` is a class.
        quantize_input: quantize the inputs.
        quantize_weight: quantize the weights, if the layer has any.
        quantization_index: which inputs of a layer with several; `None` means all.
        weight_bits, input_bits: 2 to 8; `None` means those of the `quantize_model` call.
        quantize_output: quantize the output too.
    """

    name: str
    is_keras_class: bool = False
    quantize_input: bool = True
    quantize_weight: bool = True
    quantization_index: list[int] | None = None
    weight_bits: int | None = None
    input_bits: int | None = None
    quantize_output: bool = False

    @property
    def is_pattern(self) -> bool:
        return not _GLOB.isdisjoint(self.name)

    def matches(self, name: str, path: str | None = None) -> bool:
        """Whether this entry, one by name, speaks of the layer of that name or path."""
        if self.is_keras_class:
            return False
        return any(
            candidate == self.name or (self.is_pattern and fnmatch.fnmatchcase(candidate, self.name))
            for candidate in (name, path or name)
        )


class QuantizationSpec:
    """A list of `LayerConfig`, filled by `add`.

    Where several entries speak of one layer, one by exact name wins over a glob pattern and that over a class; among
    equals, the one added last.

    Attributes:
        layers: the entries, in the order in which they were added.
    """

    def __init__(self):
        self.layers: list[LayerConfig] = []

    def add(
        self,
        name: str | Sequence[str],
        is_keras_class: bool | Sequence[bool] = False,
        quantize_input: bool | Sequence[bool] = True,
        quantize_weight: bool | Sequence[bool] = True,
        quantization_index: int | Sequence[Any] | None = None,
        *,
        weight_bits: int | Sequence[int | None] | None = None,
        input_bits: int | Sequence[int | None] | None = None,
        quantize_output: bool | Sequence[bool] = False,
    ) -> None:
        """Add an entry; see `LayerConfig` for the meaning of each argument.

        With a list of names, every other argument is one value for all of them or a list of the same length;
        `quantization_index` is then a list with, for each name, a list of indices or `None`.

        Raises:
            ValueError: lists of unequal length, or bits out of range.
            TypeError: a name that is not a string, or an index that is not an integer.
        """
        if isinstance(name, str) or not isinstance(name, Iterable):
            columns = [[is_keras_class], [quantize_input], [quantize_weight], [quantization_index]]
            columns += [[weight_bits], [input_bits], [quantize_output]]
            names: list[str] = [name]
        else:
            names = list(name)
            given = {
                "is_keras_class": is_keras_class,
                "quantize_input": quantize_input,
                "quantize_weight": quantize_weight,
                "quantization_index": quantization_index,
                "weight_bits": weight_bits,
                "input_bits": input_bits,
                "quantize_output": quantize_output,
            }
            columns = [_column(argument, value, names) for argument, value in given.items()]
        self.layers += [_layer_config(*row) for row in zip(*[names, *columns], strict=True)]

    def find(self, name: str, class_names: Sequence[str] = (), path: str | None = None) -> LayerConfig | None:
        """The entry that speaks of a layer, if one does; see `SpecIndex.find`."""
        return SpecIndex(self).find(name, class_names, path)

    def copy(self) -> QuantizationSpec:
        """Another spec with the same entries."""
        new = QuantizationSpec()
        new.layers = list(self.layers)
        return new

    def __str__(self) -> str:
        titles = [field.name for field in fields(LayerConfig)]
        return text_table(titles, [[getattr(entry, title) for title in titles] for entry in self.layers])

    def __repr__(self) -> str:
        return f"<QuantizationSpec of {len(self.layers)} entries>"

    def __bool__(self) -> bool:
        return bool(self.layers)


class SpecIndex:
    """A spec prepared for many questions, each of which is answered in a time that does not grow with its entries."""

    def __init__(self, spec: QuantizationSpec):
        by_name = [entry for entry in spec.layers if not entry.is_keras_class]
        self._exact = {entry.name: entry for entry in by_name if not entry.is_pattern}
        self._patterns = [entry for entry in reversed(by_name) if entry.is_pattern]
        by_class = [entry for entry in spec.layers if entry.is_keras_class]
        self._classes = {name: entry for entry in by_class for name in (entry.name, resolve_alias(entry.name))}

    def find(self, name: str, class_names: Sequence[str] = (), path: str | None = None) -> LayerConfig | None:
        """The entry that speaks of a layer, if one does.

        Args:
            name: the layer's name.
            class_names: the layer's class and its bases, nearest first, as `class_names_in_spec` of
                `model.keras_classes` has them; empty: look for entries by name only.
            path: the names of the nested models around the layer and its own, joined by "/".
        """
        for candidate in (path, name):
            if candidate in self._exact:
                return self._exact[candidate]
        for entry in self._patterns:
            if entry.matches(name, path):
                return entry
        return next((self._classes[c] for c in class_names if c in self._classes), None)


def _column(argument: str, value: Any, names: list[str]) -> list[Any]:
    """One value a name."""
    if not isinstance(value, (list, tuple)):
        return [value] * len(names)
    if len(value) != len(names):
        raise ValueError(
            f"QuantizationSpec.add got {len(names)} names but {len(value)} values of {argument!r}. Give one value for "
            "all, or a list with one value a name."
        )
    return list(value)


def _layer_config(
    name, is_keras_class, quantize_input, quantize_weight, index, weight_bits, input_bits, quantize_output
) -> LayerConfig:
    if not isinstance(name, str):
        raise TypeError(f"A layer or class name must be a string, got {name!r}. Pass layer.name for a layer.")
    if index is not None:
        index = list(index) if isinstance(index, Iterable) else [index]
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in index):
            raise TypeError(
                f"quantization_index of {name!r} must be integers, got {index!r}. With a list of names it is a "
                "list of such lists: [[1], [0], None]."
            )
    for bits, argument in ((weight_bits, "weight_bits"), (input_bits, "input_bits")):
        if bits is not None:
            check_bits(bits, f"{argument} of {name!r}")
    return LayerConfig(
        name,
        bool(is_keras_class),
        bool(quantize_input),
        bool(quantize_weight),
        index,
        weight_bits,
        input_bits,
        bool(quantize_output),
    )
