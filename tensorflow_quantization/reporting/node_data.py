"""`model_explorer_data`: the figures of a file's nodes for Google's Model Explorer.

The format is `GraphNodeData` of the package ai-edge-model-explorer; the id of a node is the name that its ONNX adapter
(model-explorer-onnx) gives the node, which is the name in the file.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from tensorflow_quantization.comparison import Comparison
from tensorflow_quantization.inspection.runtime import RuntimeReport
from tensorflow_quantization.onnx_graph.queries import layer_in
from tensorflow_quantization.text.messages import is_path, must_be_path
from tensorflow_quantization.text.replacing import check_writable, replacing
from tensorflow_quantization.wrappers import float_path

#: Backgrounds that leave Model Explorer's black text legible.
_INTEGER, _FLOAT = "#9ccfd8", "#f6c177"


def model_explorer_data(path: str | os.PathLike, report: RuntimeReport, comparison: Comparison | None = None) -> Path:
    """Writes node data for Model Explorer, which shows it beside the ONNX file (`--node_data_paths`).

    Without a comparison, the value of a node is 1 if it ran in integers, and 0 if it ran in float; nodes that are part
    of another kernel have no value. With a comparison, it is the own signal-to-noise ratio of the node's layer in dB.

    Examples:
        >>> report = runtime_report("model.onnx")
        >>> model_explorer_data("integers.json", report).name
        'integers.json'

    Args:
        path: the path of the JSON file to write. An existing file is replaced.
        report: the result of `runtime_report` for the ONNX file.
        comparison: a result of `compare` for the model that the file was exported from. Default: `None`.

    Returns:
        The path of the JSON file.

    Raises:
        TypeError: `path` is no path, or a result is of another kind.
        OSError: `path` cannot be written.
    """
    if not is_path(path):
        raise TypeError(must_be_path("path", path))
    if not isinstance(report, RuntimeReport):
        raise TypeError(f"report must be a result of runtime_report, got {type(report).__name__}.")
    if comparison is not None and not isinstance(comparison, Comparison):
        raise TypeError(f"comparison must be a result of compare, got {type(comparison).__name__}.")
    path = Path(path)
    check_writable(path, "node_data.json")
    data = _integers(report) if comparison is None else _noise(report, comparison)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    return path


def _integers(report: RuntimeReport) -> dict[str, Any]:
    colors = {"integer": (1, _INTEGER), "float": (0, _FLOAT)}
    ran = {node.name: colors[node.ran] for node in report if node.ran in colors}
    results = {name: {"value": value, "bgColor": color} for name, (value, color) in ran.items()}
    return {"name": f"integer in {report.runtime}", "results": results}


def _noise(report: RuntimeReport, comparison: Comparison) -> dict[str, Any]:
    ratios = {layer.layer: layer.own_snr for layer in comparison if math.isfinite(layer.own_snr)}
    layers = {node.name: float_path(layer_in(node.name)) for node in report}
    results = {name: {"value": round(ratios[layer], 2)} for name, layer in layers.items() if layer in ratios}
    gradient = [{"stop": 0, "bgColor": _FLOAT}, {"stop": 1, "bgColor": _INTEGER}]
    return {"name": "own signal-to-noise, dB", "results": results, "gradient": gradient}
