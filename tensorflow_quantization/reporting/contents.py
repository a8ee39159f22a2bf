"""`Contents`: all that a report shows, as data for the page."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorflow_quantization.comparison import Comparison
from tensorflow_quantization.inspection import ModelDescription
from tensorflow_quantization.inspection.checks import Report
from tensorflow_quantization.inspection.runtime import RuntimeReport
from tensorflow_quantization.reporting.histograms import Counts
from tensorflow_quantization.reporting.layout import HEIGHT, WIDTH, layered
from tensorflow_quantization.reporting.network import Network
from tensorflow_quantization.text.tables import count_text, decibels_text, finite
from tensorflow_quantization.wrappers import float_path

#: A figure of the user: a number, or a text that is shown as it is; `None`: not known.
Figure = float | str | None


@dataclass
class Contents:
    """What is known; `None`, or empty, for what is not.

    Attributes:
        name: of the model or the file.
        network: what is drawn; `gathered` sets it always.
        description, comparison, runtime, check: the results of these functions.
        sizes: bytes of the float file and of the quantized file.
        latencies: their seconds.
        latency_of: what was measured, a clause.
        metrics: the figures of the user for float and quantized, by name.
        histograms: by the name of a layer in the description, the histograms of its quantizers; `None` for a quantizer
            without one.
        left_out: what the report lacks and what to pass for it, sentences.
        versions: of the libraries, a line.
    """

    name: str
    network: Network | None = None
    description: ModelDescription | None = None
    comparison: Comparison | None = None
    runtime: RuntimeReport | None = None
    check: Report | None = None
    sizes: tuple[int | None, int | None] = (None, None)
    latencies: tuple[float | None, float | None] = (None, None)
    latency_of: str = ""
    metrics: Mapping[str, tuple[Figure, Figure]] = field(default_factory=dict)
    histograms: dict[str, list[Counts | None]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    versions: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents as a dict for JSON."""
        return finite(
            {
                "name": self.name,
                "figures": self._figures(),
                "findings": self._findings(),
                "network": self._network(),
                "layers": self._layers(),
                "has_comparison": self.comparison is not None,
                "left_out": self.left_out,
                "versions": self.versions,
            }
        )

    def _figures(self) -> list[dict[str, str]]:
        """Each with a title, the value, the value of the float model, and a note."""
        found = []
        for name, (of_float, quantized) in self.metrics.items():
            found.append({"title": name, "value": _figure(quantized), "float": _figure(of_float), "note": ""})
        if self.comparison is not None:
            note = "output of the quantized model beside float"
            if self.comparison.file_snr is not None:
                note += f"; file beside Keras: {decibels_text(self.comparison.file_snr)}"
            value = decibels_text(self.comparison.output_snr)
            found.append({"title": "Signal-to-noise", "value": value, "float": "", "note": note})
        if self.runtime is not None:
            note = f"of {count_text(self.runtime.macs)} multiply-accumulates, {self.runtime.runtime}"
            share = self.runtime.integer_share
            value = "unknown" if share is None else f"{100 * share:.1f} %"
            found.append({"title": "In integers", "value": value, "float": "", "note": note})
        sizes = [None if size is None else count_text(size, "B") for size in self.sizes]
        latencies = [None if seconds is None else f"{1000 * seconds:.3g} ms" for seconds in self.latencies]
        for title, (of_float, quantized), ratio, note in (
            ("Size", sizes, _ratio(self.sizes, ("smaller", "larger")), ""),
            ("Latency", latencies, _ratio(self.latencies, ("faster", "slower")), self.latency_of),
        ):
            if quantized is not None:
                notes = "; ".join(filter(None, (ratio, note)))
                found.append({"title": title, "value": quantized, "float": of_float or "", "note": notes})
        return found

    def _findings(self) -> list[dict[str, Any]]:
        """Groups of findings, each with a title and items; an item names layers or nodes."""
        groups = []
        if self.comparison is not None:
            items = [
                {
                    "mark": f"+{decibels_text(found.gain)}" if found.gain > 0 else found.kind.value.replace("_", " "),
                    "severity": "gain" if found.gain > 0 else "info",
                    "where": [found.layer],
                    "what": found.problem,
                    "fix": found.remedy,
                }
                for found in self.comparison.worst
            ]
            groups.append({"title": "Accuracy", "of": "compare", "items": items})
        if self.check is not None:
            items = [
                {
                    "mark": found.severity,
                    "severity": found.severity,
                    "where": list(found.nodes),
                    "what": f"{found.demands} Here {found.what}.",
                    "fix": found.fix,
                }
                for found in self.check
            ]
            groups.append({"title": f"Rules of {self.check.target}", "of": "check_onnx", "items": items})
        if self.runtime is not None:
            alike = defaultdict(list)
            for node in self.runtime.fallbacks:
                alike[node.ran, node.reason, node.fix].append(node.name)
            items = [
                {"mark": ran, "severity": ran, "where": names, "what": f"{reason}.", "fix": fix}
                for (ran, reason, fix), names in alike.items()
            ]
            groups.append({"title": "Products not in integers", "of": "runtime_report", "items": items})
        return groups

    def _network(self) -> dict[str, Any]:
        network = self.network or Network([], [], "")
        layout = layered(len(network.nodes), [(edge.source, edge.target) for edge in network.edges])
        nodes = [dataclasses.asdict(n) | {"at": at} for n, at in zip(network.nodes, layout.nodes, strict=True)]
        edges = [dataclasses.asdict(e) | {"route": way} for e, way in zip(network.edges, layout.routes, strict=True)]
        size = {"width": layout.width, "height": layout.height, "node_width": WIDTH, "node_height": HEIGHT}
        return {"nodes": nodes, "edges": edges, "says": network.says, **size}

    def _layers(self) -> list[dict[str, Any]]:
        """What is known of each layer, by its path in the float model, in the order of the network.

        An infinite ratio has no number in JSON, so each ratio has a text, too.
        """
        layers: dict[str, dict[str, Any]] = {}
        for described in self.description or ():
            path = float_path(described.name)
            row: dict[str, Any] = {
                "layer": path,
                "class": described.class_name,
                "why": described.reason,
                "quantizers": [],
            }
            counts = self.histograms.get(described.name, [None] * len(described.quantizers))
            layers.setdefault(path, row)["quantizers"] += [
                {"text": str(quantizer), "range": quantizer.range, "histogram": histogram}
                for quantizer, histogram in zip(described.quantizers, counts, strict=True)
            ]
        for compared in self.comparison or ():
            row = layers.setdefault(compared.layer, {"layer": compared.layer, "class": compared.class_name})
            ratios = {name: getattr(compared, name) for name in ("effect", "own_snr", "snr", "runtime_snr")}
            ratios["worst_channel"] = min(compared.channel_snr)
            row |= ratios | {name: getattr(compared, name) for name in ("share", "saturation", "dead_range", "bias")}
            row["texts"] = {name: decibels_text(ratio) for name, ratio in ratios.items() if ratio is not None}
        drawn_as = self.network.drawn_as if self.network is not None else {}
        return [row | {"drawn_as": drawn_as.get(path, path)} for path, row in layers.items()]


def _ratio(numbers: tuple[float | None, float | None], than: tuple[str, str]) -> str:
    """How many times the quantized file is less than the float file, or more, as a text with the word for it."""
    of_float, quantized = numbers
    if of_float is None or quantized is None:
        return ""
    return (
        f"{of_float / quantized:.2f} × {than[0]}"
        if quantized <= of_float
        else f"{quantized / of_float:.2f} × {than[1]}"
    )


def _figure(figure: Figure) -> str:
    if figure is None:
        return ""
    return figure if isinstance(figure, str) else f"{figure:.4g}"
