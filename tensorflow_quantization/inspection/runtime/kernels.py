"""`Kernel`: one step that a runtime executes, and how to find the nodes of the file that it stands for.

A runtime fuses nodes into kernels, and builds the name of a kernel from the names of the fused nodes. So the runtime
gets a copy of the file in which the name of each node and value is a tag, and the tags are found in the kernels' names.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

_TAG = re.compile(r"tq_(\d+)_qt")

#: Larger weights, in bytes, are written to a second file: protobuf cannot write messages above 2 GB.
_EMBEDDED = 1_500_000_000


@dataclass(frozen=True)
class Kernel:
    """One step that a runtime executes.

    Attributes:
        type: the runtime's name for the kind of kernel, for example "QLinearConv".
        precision: the dtype of its operands or inputs in the runtime's words: "8-bit", "u8", "f32", "bf16", ...
        integer: whether it computes in 8-bit integers; `None`: the runtime does not say.
        multiplies: whether it is a convolution, a matrix product, or a fused group that may contain one.
        is_layout: whether it only moves or converts data: a reorder, a transpose, a cast.
        nodes: the indices of the nodes whose tags are in its names.
        is_generated: whether the runtime generated it for a group of elementwise operators. Default: `False`.
        is_rest: whether it only completes other kernels, as the sum of a bias and the rounding after a product: a node
            that does not multiply counts as fused. Default: `False`.
        bytes: the bytes of tensors that it reads and writes, constants excepted, by dtype in the runtime's words.
            Default: empty, the runtime does not say.
        reason: why it does not compute in integers, a clause, if the kernel itself tells. Default: "".
        fix: what to do so that it computes in integers, a sentence. Default: "".
    """

    type: str
    precision: str
    integer: bool | None
    multiplies: bool
    is_layout: bool
    nodes: tuple[int, ...]
    is_generated: bool = False
    is_rest: bool = False
    bytes: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.type} ({self.precision})" if self.precision else self.type


def nodes_of(model: ir.Model) -> list[ir.Node]:
    """All nodes, subgraphs included; the index of a node is the number in its tag."""
    return list(ir.traversal.RecursiveGraphIterator(model.graph))


def write_tagged(model: ir.Model, folder: pathlib.Path) -> pathlib.Path:
    """Rename each node and each output of a node in `model` to a tag, and write the model.

    Args:
        model: the model; it is changed, and its external tensors are loaded.
        folder: an existing, empty folder.

    Returns:
        The path of the file.
    """
    ir.external_data.load_to_model(model)
    for index, node in enumerate(nodes_of(model)):
        node.name = f"tq_{index}_qt"
        for position, value in enumerate(node.outputs):
            if value.name:  # an output without a name is omitted
                value.name = f"tq_{index}_qt_{position}"
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    path = folder / "tagged.onnx"
    ir.save(model, path, external_data="tagged.data" if size > _EMBEDDED else None)
    return path


def untagged(text: str, names: Sequence[str]) -> str:
    """The text with each tag replaced by the name of its node, from `names` in the order of `nodes_of`."""
    return _TAG.sub(lambda tag: names[int(tag[1])], text)


def tags(names: Iterable[str]) -> tuple[int, ...]:
    """The indices of the nodes whose tags are in `names`, in order, each once."""
    return tuple(dict.fromkeys(int(index) for name in names for index in _TAG.findall(name)))
