"""`ByLayer`: results with an entry for each layer; `plot_by_layer` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.text.tables import axes

T = TypeVar("T")


class ByLayer(Generic[T]):
    """Base class of results that one iterates over, or looks a layer up in by its path.

    Attributes:
        layers: a list with an entry for each layer, in the order of the network.
    """

    layers: list[T]
    #: For errors: which layers there are, after "no layer 'x'".
    _which = ""

    @property
    def _owner(self) -> str:
        return "The result"

    def __iter__(self) -> Iterator[T]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> T:
        """The layer with this path.

        Raises:
            TypeError: it is no path.
            KeyError: there is no such layer; the message names the closest paths.
        """
        if not isinstance(name, str):
            raise TypeError(f"Layers have paths; pass one, or index the list .layers. Got {name!r}.")
        found = self._find(name)
        if found is None:
            hint = did_you_mean(name, [self._path(layer) for layer in self.layers])
            raise KeyError(f"{self._owner} has no layer {name!r}{self._which}.{hint}")
        return found

    def _find(self, name: str) -> T | None:
        return next((layer for layer in self.layers if self._path(layer) == name), None)

    def _path(self, layer: T) -> str:
        return layer.layer  # type: ignore[attr-defined]


def plot_by_layer(ax: Any, names: Sequence[str], series: Mapping[str, tuple[str, Sequence[float]]], label: str) -> Any:
    """Draws values of layers, which stand below each other; values that are not finite are left out.

    Args:
        ax: the axes of Matplotlib; `None` makes a figure.
        names: the layers.
        series: by name in the legend, the marker and a value for each layer.
        label: of the values.

    Returns:
        The axes.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    if ax is None:
        ax = axes(len(names))
    rows = list(range(len(names)))
    for name, (marker, values) in series.items():
        ax.plot([v if math.isfinite(v) else math.nan for v in values], rows, marker, label=name)
    ax.set_yticks(rows, list(names))
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.grid(axis="x", alpha=0.3)
    ax.legend()
    return ax
