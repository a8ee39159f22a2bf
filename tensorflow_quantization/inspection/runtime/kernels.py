"""`Kernel`: what a runtime executes, and how it is traced back to the nodes of a file.

Runtimes fuse nodes and give the result names of their own making, which hold the names of what was fused. So they get a
copy of the file in which every node and every value carries a tag, and we look for the tags.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

_TAG = re.compile(r"tq_(\d+)_qt")

#: Above this many bytes weights go beside the file: protobuf ends at 2 GB.
_EMBEDDED = 1_500_000_000


@dataclass(frozen=True)
class Kernel:
    """One step of the runtime.

    Attributes:
        type: as the runtime calls it.
        precision: "u8", "i8", "f32", "bf16", ...; of what it multiplies, or reads.
        integer: it computes in 8-bit integers; `None`: the runtime does not tell.
        multiplies: it is a convolution, a matrix product, or a fused group that may hold one.
        is_layout: it only moves data: a reorder, a transpose, a conversion.
        nodes: indices of the nodes that it stands for, as far as its names tell.
    """

    type: str
    precision: str
    integer: bool | None
    multiplies: bool
    is_layout: bool
    nodes: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.type} ({self.precision})" if self.precision else self.type


def nodes_of(model: ir.Model) -> list[ir.Node]:
    """The nodes in the order of their tags."""
    return list(ir.traversal.RecursiveGraphIterator(model.graph))


def write_tagged(model: ir.Model, folder: pathlib.Path) -> pathlib.Path:
    """Write a model with a tag for the name of each node and node output; `model` itself gets these names.

    Args:
        model: external tensors are read.
        folder: exists, and is empty.
    """
    ir.external_data.load_to_model(model)
    for index, node in enumerate(nodes_of(model)):
        node.name = f"tq_{index}_qt"
        for position, value in enumerate(node.outputs):
            if value.name:  # an empty name is an output that is left out
                value.name = f"tq_{index}_qt_{position}"
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    path = folder / "tagged.onnx"
    ir.save(model, path, external_data="tagged.data" if size > _EMBEDDED else None)
    return path


def tags(names: Iterable[str]) -> tuple[int, ...]:
    """The indices of the tagged nodes in these names, in order, each once."""
    return tuple(dict.fromkeys(int(index) for name in names for index in _TAG.findall(name)))
