"""`Sensitivity`: the result of `sensitivity`, which prints itself, most sensitive layer first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensorflow_quantization.mixed_precision.precision import Precision
from tensorflow_quantization.noise.signal_to_noise import decibels
from tensorflow_quantization.text.layers import ByLayer, plot_by_layer
from tensorflow_quantization.text.tables import (
    decibels_text,
    finite,
    html_summary,
    markdown_table,
    more_text,
    text_table,
)

#: So many layers are printed.
_SHOWN = 20


@dataclass(frozen=True)
class LayerSensitivity:
    """How much one layer, quantized alone, hurts the output of the network.

    Examples:
        >>> layer = sensitivity(model, images, target="onnxruntime")["conv"]
        >>> layer.class_name, layer.weights, list(layer.snr)
        ('Conv2D', 108, ['W8A8', 'W4A8'])

    Attributes:
        layer: the path of the layer.
        class_name: the class of the layer.
        weights: the number of weights that are quantized.
        noise: by `Precision`, the power of the error of the network's outputs, in units of their power.
    """

    layer: str
    class_name: str
    weights: int
    noise: dict[Precision, float]

    @property
    def snr(self) -> dict[str, float]:
        """The signal-to-noise ratio of the network's outputs in dB, by the name of the precision: "W4A8"."""
        return {str(precision): float(decibels(1.0, noise)) for precision, noise in self.noise.items()}

    @property
    def worst(self) -> float:
        """The greatest noise over all precisions."""
        return max(self.noise.values())


class Sensitivity(ByLayer[LayerSensitivity]):
    """How sensitive each layer of a network is. Print it, iterate over it, or look a layer up by its path.

    Examples:
        >>> result = sensitivity(model, images, target="onnxruntime")
        >>> result.ranked()[0].layer in ("conv", "scores")
        True

    Attributes:
        name: the name of the model.
        layers: a list of `LayerSensitivity`, in the order of the network.
        precisions: a list of `Precision`, what was tried.
        samples: the number of samples on which the noise was measured.
    """

    def __init__(self, name: str, layers: list[LayerSensitivity], precisions: list[Precision], samples: int):
        self.name = name
        self.layers = layers
        self.precisions = precisions
        self.samples = samples

    def __len__(self) -> int:
        return len(self.layers)

    _which = " with quantized weights"

    @property
    def _owner(self) -> str:
        return f"Model {self.name!r}"

    def ranked(self) -> list[LayerSensitivity]:
        """Returns the layers, most sensitive first: by their greatest noise."""
        return sorted(self.layers, key=lambda layer: -layer.worst)

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict for JSON: {"name", "samples", "layers"}; ratios that are infinite are `None`."""
        layers = [
            {"layer": x.layer, "class_name": x.class_name, "weights": x.weights, "snr": x.snr} for x in self.layers
        ]
        return finite({"name": self.name, "samples": self.samples, "layers": layers})

    def to_markdown(self) -> str:
        """Returns all layers as a Markdown table, most sensitive first."""
        return markdown_table(*self._table(self.ranked()))

    def _repr_html_(self) -> str:
        return html_summary(self._head(), *self._table(self.ranked()[:_SHOWN]))

    def __str__(self) -> str:
        ranked = self.ranked()
        more = f"\n{more_text(len(ranked) - _SHOWN, 'layers')}" if len(ranked) > _SHOWN else ""
        return f"{self._head()}\n\n{text_table(*self._table(ranked[:_SHOWN]))}{more}"

    __repr__ = __str__

    def plot(self, ax: Any = None) -> Any:
        """Draws the signal-to-noise ratio of each layer and precision.

        Args:
            ax: the axes of Matplotlib to draw on; `None` (default) makes a figure.

        Returns:
            The axes.

        Raises:
            ImportError: Matplotlib is not installed.
        """
        series = {
            precision: ("o", [layer.snr.get(precision, math.nan) for layer in self.layers])
            for precision in map(str, self.precisions)
        }
        names = [layer.layer for layer in self.layers]
        return plot_by_layer(ax, names, series, "signal-to-noise ratio of the output, dB")

    def _head(self) -> str:
        return f"Model {self.name!r}: output with one layer quantized, {self.samples} samples"

    def _table(self, layers: Sequence[LayerSensitivity]) -> tuple[list[str], list[list[str]]]:
        tried = list(map(str, self.precisions))
        rows = []
        for layer in layers:
            cells = [decibels_text(layer.snr[p]) if p in layer.snr else "-" for p in tried]
            rows.append([layer.layer, layer.class_name, f"{layer.weights:,}", *cells])
        return ["layer", "class", "weights", *tried], rows
