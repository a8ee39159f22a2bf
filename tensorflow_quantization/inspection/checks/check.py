"""`check_onnx`: check a file against the rules of a runtime."""

from __future__ import annotations

import os

from tensorflow_quantization.inspection.checks.onnxruntime import RULES as ONNXRUNTIME
from tensorflow_quantization.inspection.checks.openvino import RULES as OPENVINO
from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph
from tensorflow_quantization.inspection.checks.report import Finding, Report
from tensorflow_quantization.inspection.checks.rule import Rule
from tensorflow_quantization.inspection.checks.tensorrt import RULES as TENSORRT
from tensorflow_quantization.onnx_graph.metadata import target_of
from tensorflow_quantization.onnx_graph.queries import name_of
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import must_be_one_of

#: The rules of each target. A new runtime needs a file with a tuple of rules, and a line here.
RULES: dict[str, tuple[Rule, ...]] = {
    "tensorrt": TENSORRT,
    "onnxruntime": ONNXRUNTIME,
    "openvino": OPENVINO,
}
#: The target of files that do not say theirs.
_DEFAULT_TARGET = "tensorrt"


@suggests_arguments
def check_onnx(path: str | os.PathLike, target: str | None = None) -> Report:
    """Return what a runtime rejects, leaves in float, or runs slower than it could, in an ONNX file with Q/DQ.

    Any tool may have written the file. `check_onnx` executes nothing and needs no runtime installed; `runtime_report`
    loads the file in a runtime and shows which kernels run.

    Examples:
        >>> report = check_onnx("model.onnx", target="onnxruntime")
        >>> print(report)
        model.onnx for onnxruntime: no findings
        >>> report.ok
        True

    Args:
        path: the path of an `.onnx` file, a string or path-like.
        target: the runtime whose rules to check: "tensorrt", or, on an x86 CPU, "onnxruntime" or "openvino". Default:
            `None`, the target that `export_onnx` recorded in the file; "tensorrt" if the file records none of these.

    Returns:
        A `Report`: print it, iterate over its findings, or ask for `.ok`, `.errors`, `.warnings` or `.to_dict()`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an ONNX model, or there is no such target.
    """
    if target == "litert":
        raise ValueError(
            "LiteRT reads .tflite files, which are not ONNX: check_onnx has no rules for it. "
            "quantize_model(target='litert') applies the rules of LiteRT."
        )
    if target is not None and (not isinstance(target, str) or target not in RULES):
        raise ValueError(must_be_one_of("target", RULES, target))
    graph = QdqGraph.load(path)
    if target is None:
        recorded = target_of(graph.model)
        target = recorded if recorded in RULES else _DEFAULT_TARGET
    return Report(os.fspath(path), target, check_graph(graph, target))


def check_graph(graph: QdqGraph, target: str) -> list[Finding]:
    """The findings in a loaded graph, in the order of the rules."""
    return [
        Finding(
            rule.severity,
            rule.id,
            tuple(name_of(node) for node in violation.nodes),
            violation.what,
            rule.demands,
            rule.fix,
            rule.source,
            rule.keeps_float,
        )
        for rule in RULES[target]
        for violation in rule.find(graph)
    ]
