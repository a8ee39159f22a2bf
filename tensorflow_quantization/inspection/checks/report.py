"""`Report`: what `check_onnx` found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tensorflow_quantization.inspection.checks.rule import SEVERITIES, Severity
from tensorflow_quantization.text.tables import markdown_table, text_table

#: Places that a printed report shows of one rule; `findings` has all of them.
_SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """One place where a file breaks a rule.

    Attributes:
        severity: "error": the runtime rejects the file or computes something else; "warning": something runs in float
            or slower than it could; "info": worth knowing.
        rule: its id.
        nodes: names of the nodes it is about; the first is the one that suffers. Unnamed nodes are called
            "<operator> of <output>". Empty: it is about the file.
        what: is wrong, a clause.
        demands: the rule, a sentence.
        fix: what to do, a sentence.
        source: where the rule comes from.
        keeps_float: where the first node runs in float, this is why.
    """

    severity: Severity
    rule: str
    nodes: tuple[str, ...]
    what: str
    demands: str
    fix: str
    source: str
    keeps_float: bool = False

    def __str__(self) -> str:
        return f"{self.severity} [{self.rule}] {self.where}: {self.what}. {self.fix}"

    @property
    def where(self) -> str:
        """The nodes in one string, or that it is about the file as a whole."""
        return ", ".join(self.nodes) or "the file"


class Report:
    """Findings, the worst first: iterate over it, print it, or take `to_dict()` or `to_markdown()`.

    Attributes:
        path: of the file.
        target: the runtime whose rules were checked.
        findings: list of `Finding`.
    """

    titles = ("severity", "rule", "nodes", "what", "what to do")

    def __init__(self, path: str, target: str, findings: list[Finding]):
        self.path = path
        self.target = target
        self.findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def ok(self) -> bool:
        """There are no errors and no warnings."""
        return not self.errors and not self.warnings

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self if finding.severity == "warning"]

    @property
    def rules(self) -> list[str]:
        """Ids of the rules that are broken."""
        return list(dict.fromkeys(finding.rule for finding in self))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __bool__(self) -> bool:
        """A report is one, with findings or without; ask for `.ok`."""
        return True

    def about(self, node: str) -> list[Finding]:
        """The findings whose first node has this name."""
        return [finding for finding in self if finding.nodes and finding.nodes[0] == node]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: {"path", "target", "ok", "findings": [...]}."""
        findings = [dataclasses.asdict(finding) for finding in self]
        return {"path": self.path, "target": self.target, "ok": self.ok, "findings": findings}

    def to_markdown(self) -> str:
        """A Markdown table, a row a finding."""
        return markdown_table(self.titles, [[f.severity, f.rule, f.where, f.what, f.fix] for f in self])

    def __str__(self) -> str:
        counts = [(sum(f.severity == severity for f in self), severity) for severity in SEVERITIES]
        said = ", ".join(f"{n} {severity}{'s' if n != 1 and severity != 'info' else ''}" for n, severity in counts if n)
        parts = [f"{self.path} for {self.target}: {said or 'no findings'}"]
        for rule in self.rules:
            found = [finding for finding in self if finding.rule == rule]
            first = found[0]
            rows = [[finding.where, finding.what] for finding in found[:_SHOWN]]
            table = text_table(("nodes", "what"), rows).replace("\n", "\n  ")
            more = f"\n  and {len(found) - _SHOWN} more, in .findings" if len(found) > _SHOWN else ""
            parts.append(
                f"{first.severity} [{rule}] {first.demands}\n  {table}{more}\n"
                f"  What to do: {first.fix}\n  Source: {first.source}"
            )
        return "\n\n".join(parts)

    __repr__ = __str__
