"""`Report` and `Finding`: the result of `check_onnx`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tensorflow_quantization.inspection.checks.rule import SEVERITIES, Severity
from tensorflow_quantization.text.tables import html_summary, markdown_table, more_text, text_table

#: A printed report shows so many findings of one rule; `Report.findings` holds all of them.
_SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """One place where a file breaks a rule of a runtime.

    Examples:
        >>> finding = check_onnx("model.onnx", target="tensorrt").errors[0]
        >>> finding.rule, finding.nodes
        ('dtype', ('quant_image/output/QuantizeLinear',))
        >>> finding.what
        'its integers are uint8'
        >>> finding.fix
        "Quantize symmetrically to int8; with this library, export for target 'tensorrt'."

    Attributes:
        severity: "error": the runtime rejects the file or returns wrong numbers; "warning": an operator runs in float,
            or slower than it could; "info": no fault, but worth knowing.
        rule: the id of the rule, for example "zero-point".
        nodes: the names of the nodes concerned, first the node that is affected. An unnamed node is called
            "<operator> of <output>". Empty if the finding concerns the whole file.
        what: what is wrong, as a clause without a full stop.
        demands: what the rule demands, as a sentence.
        fix: what to do, as a sentence.
        source: the documentation or the measurement that the rule comes from.
        keeps_float: whether this finding explains why the first node runs in float. Default: `False`.
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
        """The names of the nodes, joined by commas; "the file" if the finding concerns the whole file."""
        return ", ".join(self.nodes) or "the file"


class Report:
    """The findings of `check_onnx` in one file, errors first, then warnings, then infos.

    Iterate over a report to get its findings, or print it. `len(report)` is the number of findings. A report is
    true even without findings: ask for `.ok`.

    Examples:
        >>> report = check_onnx("model.onnx", target="tensorrt")
        >>> report.ok
        False
        >>> report.rules
        ['dtype', 'quantized-bias']
        >>> len(report.errors), len(report.warnings)
        (4, 0)

    Attributes:
        path: the path of the file, as a string.
        target: the runtime whose rules were checked.
        findings: a list of `Finding`.
    """

    titles = ("severity", "rule", "nodes", "what", "what to do")

    def __init__(self, path: str, target: str, findings: list[Finding]):
        self.path = path
        self.target = target
        self.findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))

    @property
    def ok(self) -> bool:
        """Whether there are no errors and no warnings; infos do not count."""
        return not self.errors and not self.warnings

    @property
    def errors(self) -> list[Finding]:
        """The findings whose severity is "error"."""
        return [finding for finding in self if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings whose severity is "warning"."""
        return [finding for finding in self if finding.severity == "warning"]

    @property
    def rules(self) -> list[str]:
        """The ids of the broken rules, each once, in the order of the findings."""
        return list(dict.fromkeys(finding.rule for finding in self))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __bool__(self) -> bool:
        """Always `True`, so that a report without findings is not taken for no report; ask for `.ok`."""
        return True

    def about(self, node: str) -> list[Finding]:
        """The findings whose first node has the name `node`; an empty list if there are none."""
        return [finding for finding in self if finding.nodes and finding.nodes[0] == node]

    def to_dict(self) -> dict[str, Any]:
        """The report as a dict for JSON, with the keys "path", "target", "ok" and "findings", a list of dicts."""
        findings = [dataclasses.asdict(finding) for finding in self]
        return {"path": self.path, "target": self.target, "ok": self.ok, "findings": findings}

    def to_markdown(self) -> str:
        """The report as a Markdown table with one row per finding."""
        return markdown_table(self.titles, self._rows())

    def _repr_html_(self) -> str:
        return html_summary(self._head(), self.titles, self._rows())

    def _rows(self) -> list[list[str]]:
        return [[f.severity, f.rule, f.where, f.what, f.fix] for f in self]

    def _head(self) -> str:
        counts = [(sum(f.severity == severity for f in self), severity) for severity in SEVERITIES]
        said = ", ".join(f"{n} {severity}{'s' if n != 1 and severity != 'info' else ''}" for n, severity in counts if n)
        return f"{self.path} for {self.target}: {said or 'no findings'}"

    def __str__(self) -> str:
        parts = [self._head()]
        for rule in self.rules:
            found = [finding for finding in self if finding.rule == rule]
            first = found[0]
            rows = [[finding.where, finding.what] for finding in found[:_SHOWN]]
            table = text_table(("nodes", "what"), rows).replace("\n", "\n  ")
            more = f"\n  {more_text(len(found) - _SHOWN, 'findings')}" if len(found) > _SHOWN else ""
            parts.append(
                f"{first.severity} [{rule}] {first.demands}\n  {table}{more}\n"
                f"  What to do: {first.fix}\n  Source: {first.source}"
            )
        return "\n\n".join(parts)

    __repr__ = __str__
