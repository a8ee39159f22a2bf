"""`Rule`: what a runtime demands of a file with Q/DQ, as data and a predicate."""

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
        nodes: the nodes concerned, first the node that is affected.
        what: what is wrong, as a clause without a full stop.
    """

    nodes: tuple[ir.Node, ...]
    what: str


Predicate = Callable[[QdqGraph], Iterator[Violation]]


@dataclass(frozen=True)
class Rule:
    """One rule of one runtime.

    Attributes:
        id: the name of the rule: words joined by hyphens.
        severity: "error": the runtime rejects the file or returns wrong numbers; "warning": an operator runs in float,
            or slower than it could; "info": no fault, but worth knowing.
        demands: what the runtime demands, as one sentence.
        fix: what to do, as one sentence.
        source: the documentation or the measurement that the rule comes from.
        find: yields a `Violation` for each place that breaks the rule.
        keeps_float: whether a violation explains why its first node runs in float.
    """

    id: str
    severity: Severity
    demands: str
    fix: str
    source: str
    find: Predicate
    keeps_float: bool = False
