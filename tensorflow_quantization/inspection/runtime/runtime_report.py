"""`runtime_report`: which nodes a runtime executes in integers, and why the others run in float."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import onnx_ir as ir

from tensorflow_quantization.inspection.checks.check import check_graph
from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph, WeightedNode
from tensorflow_quantization.inspection.checks.report import Finding
from tensorflow_quantization.inspection.runtime import onnxruntime_graph, openvino_graph
from tensorflow_quantization.inspection.runtime.kernels import Kernel, nodes_of, write_tagged
from tensorflow_quantization.inspection.runtime.macs import InputShapes, macs, with_input_shapes
from tensorflow_quantization.onnx_graph.files import read_onnx, to_ir, with_shapes
from tensorflow_quantization.onnx_graph.operators import FACTORS
from tensorflow_quantization.onnx_graph.queries import (
    is_constant,
    is_dequantize,
    is_quantize,
    name_of,
    operand,
)
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import did_you_mean, must_be_one_of
from tensorflow_quantization.text.tables import markdown_table, text_table

#: A runtime is a module with `installed_version`, `executed` and `REFUSED`. `check_onnx` knows its rules by this name.
RUNTIMES: dict[str, ModuleType] = {"onnxruntime": onnxruntime_graph, "openvino": openvino_graph}

#: A printed report shows so many fallbacks; `RuntimeReport.fallbacks` holds all of them.
_SHOWN = 20

Ran = Literal["integer", "float", "fused", "folded", "unknown"]

_UNEXPLAINED = {
    "float": "no rule of check_onnx explains it",
    "unknown": "the runtime does not say: the node is part of a larger kernel",
}


@dataclass(frozen=True)
class NodeReport:
    """How a runtime executes one node of a file.

    Examples:
        >>> node = runtime_report("model.onnx")["quant_conv/Conv"]
        >>> node.op_type, node.ran, node.kernel
        ('Conv', 'integer', 'QLinearConv (8-bit)')
        >>> node.macs
        3888

    Attributes:
        name: the name of the node; an unnamed node is called "<operator> of <output>".
        op_type: the operator, for example "Conv".
        macs: the number of multiply-accumulates for one run with the input shapes of the report, 0 for an operator that
            does not multiply; `None` if a shape is unknown.
        ran: "integer", "float", "fused" (part of another kernel, or removed), "folded" (computed once, when the file is
            loaded), or "unknown" (it multiplies, but the runtime does not say how).
        kernel: the kernel that executes the node and its precision, for example "QLinearConv (8-bit)"; "" if there is
            none.
        reason: why the node does not run in integers, from the rules of `check_onnx`; "" if it does, or if it does
            not multiply and no rule concerns it.
    """

    name: str
    op_type: str
    macs: int | None
    ran: Ran
    kernel: str
    reason: str


class RuntimeReport:
    """The result of `runtime_report`: how a runtime executes each node of a file.

    Iterate over a report to get its nodes, or index it with the name of a node. Print it for a summary.

    Examples:
        >>> report = runtime_report("model.onnx")
        >>> report.integer_share
        1.0
        >>> report.fallbacks
        []
        >>> [(node.name, node.macs) for node in report.multiplying]
        [('quant_conv/Conv', 3888), ('quant_scores/Gemm', 20)]
        >>> report.kernels["QLinearConv"]
        1

    Attributes:
        path: the path of the file, as a string.
        runtime: the name and version of the runtime.
        nodes: a list of `NodeReport` in the order of the file, without quantizers and Constant nodes.
        kernels: a dict from the type of a kernel to the number of kernels of this type.
    """

    titles = ("node", "operator", "MACs", "share", "ran as", "why not in integers")

    def __init__(self, path: str, runtime: str, nodes: list[NodeReport], kernels: dict[str, int]):
        self.path = path
        self.runtime = runtime
        self.nodes = nodes
        self.kernels = kernels

    def __iter__(self) -> Iterator[NodeReport]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> NodeReport:
        """The node called `name`.

        Raises:
            KeyError: there is no such node.
        """
        if not isinstance(name, str):
            raise TypeError(f"Nodes have names; pass one, or index the list .nodes. Got {name!r}.")
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"There is no node {name!r}.{did_you_mean(name, [node.name for node in self.nodes])}")

    @property
    def multiplying(self) -> list[NodeReport]:
        """The nodes that multiply at run time: convolutions and matrix products that are not folded."""
        return [node for node in self if node.op_type in FACTORS and node.ran != "folded"]

    @property
    def macs(self) -> int:
        """The number of multiply-accumulates of all nodes whose shapes are known."""
        return sum(node.macs or 0 for node in self.multiplying)

    @property
    def integer_share(self) -> float:
        """The share of the multiply-accumulates that run in integers, from 0 to 1; 0 if nothing multiplies."""
        integer = sum(node.macs or 0 for node in self.multiplying if node.ran == "integer")
        return integer / self.macs if self.macs else 0.0

    @property
    def fallbacks(self) -> list[NodeReport]:
        """The nodes that multiply and do not run in integers, most multiply-accumulates first."""
        return sorted((n for n in self.multiplying if n.ran != "integer"), key=lambda n: -(n.macs or 0))

    @property
    def reorders(self) -> int:
        """The number of kernels that only change the layout or the dtype of a tensor."""
        return sum(n for kind, n in self.kernels.items() if kind.startswith("Reorder") or kind in ("Convert", "Cast"))

    @property
    def transposes(self) -> int:
        """The number of kernels that transpose a tensor."""
        return self.kernels.get("Transpose", 0)

    def to_dict(self) -> dict[str, Any]:
        """The report as a dict for JSON: counts, "kernels" as a dict, and "nodes" as a list of dicts."""
        return {
            "path": self.path,
            "runtime": self.runtime,
            "integer_share": self.integer_share,
            "macs": self.macs,
            "reorders": self.reorders,
            "transposes": self.transposes,
            "kernels": dict(self.kernels),
            "nodes": [dataclasses.asdict(node) for node in self],
        }

    def to_markdown(self) -> str:
        """The report as a Markdown table with one row per node that multiplies."""
        return markdown_table(self.titles, [self._row(node) for node in self.multiplying])

    def __str__(self) -> str:
        multiplying = self.multiplying
        integer = sum(node.ran == "integer" for node in multiplying)
        parts = [
            f"{self.path} in {self.runtime}: {100 * self.integer_share:.1f} % of {_short(self.macs)} "
            f"multiply-accumulates in integers, {integer} of {len(multiplying)} nodes that multiply\n"
            f"{self.reorders} reorders, {self.transposes} transposes"
        ]
        if self.fallbacks:
            table = text_table(self.titles, [self._row(node) for node in self.fallbacks[:_SHOWN]])
            rest = len(self.fallbacks) - _SHOWN
            parts.append(f"{table}\nand {rest} more, in .fallbacks" if rest > 0 else table)
        others = [n for n in self if n.op_type not in FACTORS and n.ran == "float"]
        if others:
            counts = collections.Counter(node.op_type for node in others)
            names = ", ".join(f"{n} {op_type}" for op_type, n in counts.most_common())
            parts.append(f"Other operators in float: {names}")
        return "\n\n".join(parts)

    __repr__ = __str__

    def _row(self, node: NodeReport) -> list[str]:
        share = "?" if node.macs is None else f"{100 * node.macs / self.macs:.1f} %" if self.macs else "-"
        return [node.name, node.op_type, _short(node.macs), share, node.kernel or node.ran, node.reason]


def _short(count: int | None) -> str:
    if count is None:
        return "?"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


@suggests_arguments
def runtime_report(
    path: str | os.PathLike, runtime: str = "onnxruntime", input_shapes: InputShapes | None = None
) -> RuntimeReport:
    """Load a file in a runtime on the CPU, and return which of its nodes run in integers.

    The runtime gets the shapes in the file: a dynamic batch size stays dynamic. Multiply-accumulates are counted for
    Conv, ConvTranspose, Gemm, MatMul and their integer forms; the body of a Loop counts once. Recurrent and attention
    operators are not counted.

    Examples:
        >>> report = runtime_report("model.onnx", runtime="onnxruntime")
        >>> report.integer_share
        1.0
        >>> report["quant_conv/Conv"].kernel
        'QLinearConv (8-bit)'

    Args:
        path: the path of an `.onnx` file, a string or path-like.
        runtime: "onnxruntime" (default) or "openvino". It has to be installed.
        input_shapes: the shapes for which to count multiply-accumulates: a dict from input names to shapes, or the
            shape of the only input. Default: the shapes in the file, where a dynamic first dimension counts as 1.

    Returns:
        A `RuntimeReport`: print it, iterate over its nodes, or ask for `.integer_share`, `.fallbacks` or `.to_dict()`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the runtime is not installed.
        ValueError: there is no such runtime, the file is not an ONNX model, the runtime does not load the file, an
            input has a dynamic dimension besides the first and `input_shapes` does not say its size, or `input_shapes`
            does not fit the inputs.
    """
    if not isinstance(runtime, str) or runtime not in RUNTIMES:
        raise ValueError(must_be_one_of("runtime", RUNTIMES, runtime))
    proto = read_onnx(path)
    counted = to_ir(with_input_shapes(proto, input_shapes), path)
    # Read the file first: its errors do not depend on the runtime, which may not be installed.
    version = RUNTIMES[runtime].installed_version()
    graph = QdqGraph(to_ir(with_shapes(proto), path))
    findings = check_graph(graph, runtime)
    for finding in findings:
        if finding.rule in RUNTIMES[runtime].REFUSED:
            raise ValueError(f"{version} would crash on {os.fspath(path)}, so it is not loaded: {finding}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            kernels = RUNTIMES[runtime].executed(write_tagged(to_ir(proto, path), pathlib.Path(folder)))
    except RuntimeError as error:
        raise ValueError(
            f"{version} does not load {os.fspath(path)}: {error}\ncheck_onnx(path, {runtime!r}) may tell why."
        ) from error
    nodes = _match(graph, findings, kernels, [macs(node) for node in nodes_of(counted)])
    return RuntimeReport(os.fspath(path), version, nodes, dict(collections.Counter(k.type for k in kernels)))


def _match(
    graph: QdqGraph, findings: list[Finding], kernels: list[Kernel], counts: list[int | None]
) -> list[NodeReport]:
    by_node: dict[int, list[Kernel]] = collections.defaultdict(list)
    for named in kernels:
        for index in named.nodes:
            by_node[index].append(named)
    index_of = {id(node): index for index, node in enumerate(graph.nodes)}
    reasons: dict[str, list[str]] = collections.defaultdict(list)
    for finding in findings:
        if finding.keeps_float and finding.nodes:
            reasons[finding.nodes[0]].append(f"{finding.what} [{finding.rule}]")
    weighted = {id(w.node): w for w in graph.weighted}
    reports = []
    for index, node in enumerate(graph.nodes):
        if is_quantize(node) or is_dequantize(node) or node.op_type == "Constant":
            continue
        kernel = _kernel_of(node, by_node, index_of)
        ran = _ran(node, kernel)
        reason = ""
        if ran in ("float", "unknown"):
            known = [reason for concerned in _concerned(node, weighted) for reason in reasons[name_of(concerned)]]
            # Only an operator that multiplies needs an explanation: others are not expected to run in integers.
            reason = "; ".join(dict.fromkeys(known)) or (_UNEXPLAINED[ran] if node.op_type in FACTORS else "")
        reports.append(NodeReport(name_of(node), node.op_type, counts[index], ran, str(kernel or ""), reason))
    return reports


def _concerned(node: ir.Node, weighted: dict[int, WeightedNode]) -> list[ir.Node]:
    """The node, and the quantizers of its factors."""
    nodes = [node]
    if id(node) in weighted:
        for source in weighted[id(node)].sources:
            nodes += [found for found in (source.dequantize, source.quantize) if found is not None]
    return nodes


def _kernel_of(node: ir.Node, by_node: dict[int, list[Kernel]], index_of: dict[int, int]) -> Kernel | None:
    """The kernel that executes the node, found by the tag in its name.

    A kernel that multiplies may carry only the tag of the last node fused into it, so the search follows the readers.
    """
    own = [kernel for kernel in by_node[index_of[id(node)]] if not kernel.is_layout]
    if node.op_type not in FACTORS:
        return own[0] if own else None
    while True:
        products = [kernel for kernel in by_node[index_of[id(node)]] if kernel.multiplies]
        if products:
            # Prefer the product to a subgraph of elementwise operators around it.
            return min(products, key=lambda product: product.type == "Subgraph")
        readers = node.outputs[0].consumers()
        if len(readers) != 1 or readers[0].op_type in FACTORS:
            return own[0] if own else None
        node = readers[0]


def _ran(node: ir.Node, kernel: Kernel | None) -> Ran:
    if node.inputs and all(value is None or is_constant(value) for value in node.inputs):
        return "folded"
    if node.op_type not in FACTORS:
        return "fused" if kernel is None else "integer" if kernel.integer else "float"
    if all(is_constant(operand(node, index)) for index in FACTORS[node.op_type]):
        return "folded"
    if kernel is None or not kernel.multiplies or kernel.integer is None:
        return "unknown"
    return "integer" if kernel.integer else "float"
