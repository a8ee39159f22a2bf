"""`RuntimeReport`: the result of `runtime_report`."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tensorflow_quantization.onnx_graph.operators import MULTIPLYING
from tensorflow_quantization.text.messages import did_you_mean, shortened
from tensorflow_quantization.text.tables import count_text, html_summary, markdown_table, more_text, text_table

#: A printed report shows so many fallbacks; `RuntimeReport.fallbacks` holds all of them.
_SHOWN = 20

Ran = Literal["integer", "float", "fused", "folded", "unknown"]


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
        precision: the dtype in which the kernel computes, in the runtime's words: "8-bit", "u8", "Int8", "Half"; of a
            kernel that does not multiply in TensorRT, the dtypes that it reads and writes. Default: "".
        fix: what to do so that it runs in integers; "" if nothing is known. Default: "".
    """

    name: str
    op_type: str
    macs: int | None
    ran: Ran
    kernel: str
    reason: str
    precision: str = ""
    fix: str = ""


@dataclass(frozen=True)
class KernelReport:
    """One kernel that a runtime executes.

    Examples:
        >>> kernels = runtime_report("model.onnx").executed
        >>> [kernel.nodes for kernel in kernels if kernel.type == "QLinearConv"]
        [('quant_conv/Conv',)]

    Attributes:
        type: the runtime's name for the kind of kernel, for example "QLinearConv".
        precision: see `NodeReport`.
        integer: whether it computes in 8-bit integers; `None`: the runtime does not say.
        nodes: the names of the nodes that are fused into it, without quantizers, as far as the runtime says.
        bytes: the bytes of tensors that it reads and writes, constants excepted, by dtype; empty if the runtime does
            not say.
    """

    type: str
    precision: str
    integer: bool | None
    nodes: tuple[str, ...]
    bytes: dict[str, int] = field(default_factory=dict)


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
        executed: a list of `KernelReport`, the kernels of the runtime; for TensorRT, in the order of their execution.
    """

    titles = ("node", "operator", "MACs", "share", "ran as", "why not in integers")

    def __init__(self, path: str, runtime: str, nodes: list[NodeReport], executed: list[KernelReport]):
        self.path = path
        self.runtime = runtime
        self.nodes = nodes
        self.executed = executed

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
        """The nodes that multiply at run time: convolutions, products and recurrent layers that are not folded."""
        return [node for node in self if node.op_type in MULTIPLYING and node.ran != "folded"]

    @property
    def macs(self) -> int:
        """The number of multiply-accumulates of all nodes whose shapes are known."""
        return sum(node.macs or 0 for node in self.multiplying)

    @property
    def integer_share(self) -> float | None:
        """The share of the multiply-accumulates that run in integers, from 0 to 1; 0 if nothing multiplies.

        `None` if it is unknown: `uncounted` is not empty, and only some of the nodes that multiply run in integers.
        """
        if self.uncounted:
            in_integers = {node.ran == "integer" for node in self.multiplying}
            return None if len(in_integers) > 1 else float(in_integers.pop())
        integer = sum(node.macs or 0 for node in self.multiplying if node.ran == "integer")
        return integer / self.macs if self.macs else 0.0

    @property
    def uncounted(self) -> list[NodeReport]:
        """The nodes that multiply, but whose multiply-accumulates are unknown, because a shape is."""
        return [node for node in self.multiplying if node.macs is None]

    @property
    def fallbacks(self) -> list[NodeReport]:
        """The nodes that multiply and do not run in integers, most multiply-accumulates first."""
        return sorted((n for n in self.multiplying if n.ran != "integer"), key=lambda n: -(n.macs or 0))

    @property
    def precisions(self) -> dict[str, float]:
        """The shares of the counted multiply-accumulates by dtype, as in `NodeReport.precision`.

        "unknown" is a key, too.
        """
        counts: collections.Counter[str] = collections.Counter()
        for node in self.multiplying:
            counts["unknown" if node.ran == "unknown" else node.precision] += node.macs or 0
        return {precision: count / self.macs for precision, count in counts.most_common() if self.macs}

    @property
    def kernels(self) -> dict[str, int]:
        """A dict from the type of a kernel to the number of kernels of this type."""
        return dict(collections.Counter(kernel.type for kernel in self.executed))

    @property
    def bytes(self) -> dict[str, int]:
        """A dict from a dtype to the bytes that all kernels read and write; empty if the runtime does not say."""
        total: collections.Counter[str] = collections.Counter()
        for kernel in self.executed:
            total.update(kernel.bytes)
        return dict(total.most_common())

    @property
    def fused(self) -> list[tuple[str, ...]]:
        """The names of the nodes that one kernel computes together, for each kernel with several."""
        return [kernel.nodes for kernel in self.executed if len(kernel.nodes) > 1]

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
            "precisions": self.precisions,
            "kernels": self.kernels,
            "bytes": self.bytes,
            "nodes": [dataclasses.asdict(node) for node in self],
            "executed": [dataclasses.asdict(kernel) for kernel in self.executed],
        }

    def to_markdown(self) -> str:
        """The report as a Markdown table with one row per node that multiplies."""
        return markdown_table(self.titles, [self._row(node) for node in self.multiplying])

    def _repr_html_(self) -> str:
        return html_summary(self._head(), self.titles, [self._row(node) for node in self.multiplying], self._fixes())

    def _head(self) -> str:
        multiplying = self.multiplying
        integer = sum(node.ran == "integer" for node in multiplying)
        return (
            f"{self.path} in {self.runtime}: {self._share_text()}, {integer} of {len(multiplying)} nodes that multiply"
        )

    def _share_text(self) -> str:
        if self.integer_share is None:
            nodes = shortened([node.name for node in self.uncounted])
            return f"an unknown share in integers, because the shapes of {nodes} are unknown"
        counted = f"{count_text(self.macs)} multiply-accumulates" if not self.uncounted else "the multiply-accumulates"
        return f"{100 * self.integer_share:.1f} % of {counted} in integers"

    def _floats_that_do_not_multiply(self) -> list[NodeReport]:
        return [node for node in self if node.op_type not in MULTIPLYING and node.ran == "float"]

    def _fixes(self) -> list[str]:
        """What to do so that more runs in integers, each sentence once."""
        told = {node.fix for node in self.fallbacks}  # also of what is fused into their kernels
        nodes = (*self.fallbacks, *(n for n in self._floats_that_do_not_multiply() if n.fix not in told))
        return list(dict.fromkeys(f"{node.op_type}: {node.fix}" for node in nodes if node.fix))

    def __str__(self) -> str:
        parts = [f"{self._head()}\n{self.reorders} reorders, {self.transposes} transposes"]
        if self.bytes:
            moved = ", ".join(f"{count_text(count, 'B')} of {dtype}" for dtype, count in self.bytes.items())
            parts[0] += f"; {len(self.executed)} kernels read and write {moved}"
        if self.fallbacks:
            table = text_table(self.titles, [self._row(node) for node in self.fallbacks[:_SHOWN]])
            rest = len(self.fallbacks) - _SHOWN
            parts.append(f"{table}\n{more_text(rest, 'fallbacks')}" if rest > 0 else table)
        others = self._floats_that_do_not_multiply()
        if others:
            counts = collections.Counter(node.op_type for node in others)
            names = ", ".join(f"{n} {op_type}" for op_type, n in counts.most_common())
            parts.append(f"Other operators in float: {names}")
        fixes = self._fixes()
        if fixes:
            parts.append("\n".join(("What to do:", *(f"  {fix}" for fix in fixes))))
        return "\n\n".join(parts)

    __repr__ = __str__

    def _row(self, node: NodeReport) -> list[str]:
        if node.macs is None or self.uncounted:
            share = "?"
        else:
            share = f"{100 * node.macs / self.macs:.1f} %" if self.macs else "-"
        return [node.name, node.op_type, count_text(node.macs), share, node.kernel or node.ran, node.reason]
