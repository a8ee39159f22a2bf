"""`Rule`: what a runtime demands of a Q/DQ file, as data with one predicate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Violation:
    """One place where a rule is broken.

    Attributes:
        nodes: that this is about; the first is the one that suffers.
        what: is wrong there, a clause without a full stop.
    """

    nodes: tuple[ir.Node, ...]
    what: str


Predicate = Callable[[QdqGraph], Iterator[Violation]]


@dataclass(frozen=True)
class Rule:
    """One rule of one runtime.

    Attributes:
        id: its name, in words joined by hyphens.
        severity: "error": the runtime rejects the file or computes something else; "warning": something runs in float
            or slower than it could; "info": worth knowing.
        demands: the rule, one sentence.
        fix: what to do, one sentence.
        source: where the rule comes from.
        find: yields what breaks it.
        keeps_float: where the first node of a violation runs in float, this is why.
    """

    id: str
    severity: Severity
    demands: str
    fix: str
    source: str
    find: Predicate
    keeps_float: bool = False
