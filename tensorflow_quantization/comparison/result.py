"""`Comparison`: the result of `compare`, which prints itself, worst layer first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensorflow_quantization.comparison.findings import Finding, Kind
from tensorflow_quantization.text.layers import ByLayer, plot_by_layer
from tensorflow_quantization.text.tables import (
    decibels_text,
    finite,
    html_summary,
    markdown_table,
    more_text,
    text_table,
)
from tensorflow_quantization.wrappers import float_path

#: So many layers, and so many findings, are printed.
_SHOWN = 10
#: A layer is guilty if it causes at least half of the noise: mending it gains 3 dB.
_HALF = 10 * math.log10(2)


@dataclass(frozen=True)
class LayerComparison:
    """How one layer of a quantized model differs from the float model. Ratios of signal to noise are in dB.

    A softmax, sigmoid or tanh that computes an output is left out: it hides differences.

    Examples:
        >>> quantized = calibrate(quantize_model(model, target="onnxruntime"), images, verbose=0)
        >>> layer = compare(model, quantized, images)["conv"]
        >>> layer.own_snr > 30, len(layer.channel_snr), layer.saturation < 0.001
        (True, 4, True)

    Attributes:
        layer: the path of the layer in the float model.
        class_name: the class of the layer.
        effect: the signal-to-noise ratio of the network's output if only this layer is quantized, on
            `Comparison.effect_samples`; `snr` and all after it are of all samples.
        share: the share of this layer in the noise of all layers, each alone, from 0 to 1.
        snr: the signal-to-noise ratio of the layer's output, with the errors of all layers before it.
        own_snr: the same for float inputs: the error of this layer alone.
        channel_snr: `own_snr` of each channel, a tuple.
        cosine: the cosine of the angle between the outputs of the quantized model and the float model.
        saturation: the largest share of values that a quantizer of the layer clips, for float inputs.
        dead_range: the largest share of integers that a quantizer of the layer never uses.
        bias: the share of the own error's power that is a constant shift of channels.
        runtime_snr: the signal-to-noise ratio in the runtime, of the last quantized tensor of the layer; `None` without
            a file, or if the file does not quantize it.
        runtime_steps: the largest distance, in steps of the integers, of a tensor in the file from what Keras computes
            from the file's tensors before it; half a step is rounding. `None` like `runtime_snr`.
    """

    layer: str
    class_name: str
    effect: float
    share: float
    snr: float
    own_snr: float
    channel_snr: tuple[float, ...]
    cosine: float
    saturation: float
    dead_range: float
    bias: float
    runtime_snr: float | None = None
    runtime_steps: float | None = None


class Comparison(ByLayer[LayerComparison]):
    """The layers of a quantized model beside those of the float model, and what is wrong with them.

    Print it for the worst layers. Iterate over it to get all layers in the order of the network, or look one up by its
    path. Notebooks show it as a table.

    Examples:
        >>> quantized = calibrate(quantize_model(model, target="onnxruntime"), images, verbose=0)
        >>> report = compare(model, quantized, images)
        >>> [layer.layer for layer in report]
        ['image', 'conv', 'pool', 'scores']
        >>> report.output_snr > 30
        True

    Attributes:
        name: the name of the float model.
        layers: a list of `LayerComparison`, in the order of the network.
        worst: a list of `Finding`, the one that costs most first; empty if nothing is wrong.
        output_snr: the signal-to-noise ratio of the outputs of the quantized Keras model, as it returns them, in dB.
        file_snr: how well the outputs of the file agree with those of the quantized Keras model, in dB; `None` without
            a file.
        samples: the number of samples.
        effect_samples: how many of them `effect`, and the gain of a finding, is measured on.
    """

    def __init__(
        self,
        name: str,
        layers: list[LayerComparison],
        worst: list[Finding],
        output_snr: float,
        file_snr: float | None = None,
        samples: int = 0,
        effect_samples: int = 0,
    ):
        self.name = name
        self.layers = layers
        self.worst = worst
        self.output_snr = output_snr
        self.file_snr = file_snr
        self.samples = samples
        self.effect_samples = effect_samples

    def __len__(self) -> int:
        return len(self.layers)

    def _find(self, name: str) -> LayerComparison | None:
        return super()._find(float_path(name)) or super()._find(name)

    @property
    def _owner(self) -> str:
        return "The comparison"

    @property
    def guilty(self) -> Finding | None:
        """The finding that causes at least half of the noise at the output, or a wrong input; `None`: there is none."""
        found = self.worst[0] if self.worst else None
        return found if found is not None and (found.gain >= _HALF or found.kind is Kind.INPUT) else None

    def ranked(self) -> list[LayerComparison]:
        """Returns the layers, worst first: the guilty one, then by `effect`."""
        guilty = self.guilty.layer if self.guilty is not None else None
        return sorted(self.layers, key=lambda layer: (layer.layer != guilty, layer.effect))

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as a dict for JSON; "layers" and "worst" are lists, infinite ratios are `None`."""
        head = {name: getattr(self, name) for name in ("name", "output_snr", "file_snr", "samples", "effect_samples")}
        layers, worst = ([dataclasses.asdict(row) for row in rows] for rows in (self.layers, self.worst))
        return finite({**head, "layers": layers, "worst": worst})

    def to_markdown(self) -> str:
        """Returns all layers as a Markdown table, worst first, and the findings as a list after it."""
        titles, rows = self._table(self.ranked())
        findings = [f"{i}. **{f.layer}** ({f.kind.value}): {f.problem} {f.remedy}" for i, f in enumerate(self.worst, 1)]
        return "\n".join([markdown_table(titles, rows), *([""] if findings else []), *findings])

    def _repr_html_(self) -> str:
        titles, rows = self._table(self.ranked()[:_SHOWN])
        return html_summary(f"{self._head()} {self._note()}", titles, rows, self.worst[:_SHOWN])

    def __str__(self) -> str:
        ranked = self.ranked()
        parts = [f"{self._head()}\n\n{text_table(*self._table(ranked[:_SHOWN]))}"]
        if len(ranked) > _SHOWN:
            parts[0] += f"\n{more_text(len(ranked) - _SHOWN, 'layers')}"
        parts[0] += f"\n\n{self._note()}"
        if self.worst:
            parts.append("\n".join(self._sentence(i, f) for i, f in enumerate(self.worst[:_SHOWN], 1)))
        if len(self.worst) > _SHOWN:
            parts.append(more_text(len(self.worst) - _SHOWN, "worst"))
        return "\n\n".join(parts)

    __repr__ = __str__

    def plot(self, ax: Any = None) -> Any:
        """Draws, for each layer, its effect, its own signal-to-noise ratio, and the accumulated one.

        Args:
            ax: the axes of Matplotlib to draw on; `None` (default) makes a figure.

        Returns:
            The axes.

        Raises:
            ImportError: Matplotlib is not installed.
        """
        series = {
            _LABELS[label]: (marker, [getattr(layer, label) for layer in self.layers])
            for label, marker in (("effect", "o"), ("own_snr", "|"), ("snr", "."))
        }
        return plot_by_layer(ax, [layer.layer for layer in self.layers], series, "signal-to-noise ratio, dB")

    def _head(self) -> str:
        file = "" if self.file_snr is None else f"; file beside Keras: {decibels_text(self.file_snr)}"
        head = f"Model {self.name!r}: output at {decibels_text(self.output_snr)} on {self.samples} samples{file}"
        if self.guilty is None:
            return f"{head}. No single layer is guilty."
        if self.guilty.kind is Kind.INPUT:
            return f"{head}. The data is not as in calibration: see {self.guilty.layer}."
        return f"{head}. Guilty: {self.guilty.layer}; mending it gains {decibels_text(self.guilty.gain)}."

    def _note(self) -> str:
        """What the figures of the layers are, and that of the outputs is not."""
        before = "Layers are measured before a last softmax, sigmoid or tanh"
        return f'{before}; "{_LABELS["effect"]}" and gains on {self.effect_samples} of these samples.'

    def _sentence(self, index: int, finding: Finding) -> str:
        gain = f" +{decibels_text(finding.gain)}" if finding.gain > 0 else ""
        return f"{index}. {finding.layer} [{finding.kind.value}]{gain}: {finding.problem}\n   {finding.remedy}"

    def _table(self, layers: Sequence[LayerComparison]) -> tuple[list[str], list[list[str]]]:
        titles = [_LABELS[name] for name in ("effect", "own_snr", "channel_snr", "snr")]
        titles = ["layer", *titles, "cosine", "saturated", "dead range", "bias"]
        rows = [
            [
                layer.layer,
                *(decibels_text(v) for v in (layer.effect, layer.own_snr, min(layer.channel_snr), layer.snr)),
                f"{layer.cosine:.4f}",
                *(f"{v:.1%}" for v in (layer.saturation, layer.dead_range, layer.bias)),
            ]
            for layer in layers
        ]
        if self.file_snr is not None:
            titles += ["runtime"]
            for row, layer in zip(rows, layers, strict=True):
                row.append("-" if layer.runtime_snr is None else decibels_text(layer.runtime_snr))
        return titles, rows


_LABELS = {
    "effect": "output, only this",
    "own_snr": "own",
    "channel_snr": "worst channel",
    "snr": "with all before",
}
