"""`SearchResult`: the result of `search`; `Front`: what nothing else beats in cost and metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorflow_quantization.mixed_precision.budget import Budget, cost_text
from tensorflow_quantization.mixed_precision.precision import Precision
from tensorflow_quantization.mixed_precision.sensitivity_result import Sensitivity
from tensorflow_quantization.noise.signal_to_noise import decibels
from tensorflow_quantization.quantize import QuantizationSpec
from tensorflow_quantization.text.tables import (
    axes,
    decibels_text,
    finite,
    html_summary,
    html_table,
    markdown_table,
    text_table,
)


@dataclass(frozen=True)
class Evaluation:
    """One evaluated choice of precisions.

    Attributes:
        precisions: the `Precision` by the path of the layer.
        metric: what `evaluate` returned.
        cost: bytes of the weights, or the latency in seconds.
        noise: the sum of the sensitivities, which the search goes by.
        spec: the `QuantizationSpec` for `quantize_model`.
    """

    precisions: dict[str, Precision]
    metric: float
    cost: float
    noise: float
    spec: QuantizationSpec = field(repr=False)

    @property
    def counts(self) -> str:
        """How many layers have which precision: "3 W8A8, 2 W4A8"."""
        names = [str(p) for p in self.precisions.values()]
        return ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names), reverse=True))

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        layers = {path: str(precision) for path, precision in self.precisions.items()}
        return {"metric": self.metric, "cost": self.cost, "noise": self.noise, "precisions": layers}


class BudgetError(ValueError):
    """Nothing that `search` evaluated is within the budget.

    Examples:
        >>> from tensorflow_quantization.mixed_precision import BudgetError
        >>> try:
        ...     search(model, images, lambda m: float(m is model), budget={"drop": 0}, evaluations=2, verbose=0)
        ... except BudgetError as error:
        ...     print([evaluation.metric for evaluation in error.evaluations])
        [0.0, 0.0]

    Attributes:
        evaluations: a list of each `Evaluation`, in the order of their evaluation.
    """

    def __init__(self, budget: Budget, nearest: str, reference: float, evaluations: Sequence[Evaluation]):
        super().__init__(
            f"The budget of {budget} was not reached: {nearest} (float: {reference:.6g}). Allow more, pass more bits, "
            "or train the quantized model."
        )
        self.evaluations = list(evaluations)


class Front(Sequence[Evaluation]):
    """The Pareto front, cheapest first: a sequence of `Evaluation` that prints and draws itself.

    Attributes:
        evaluations: a list of `Evaluation`.
        reference: the metric of the float model.
        is_latency: whether costs are latencies in seconds, and not bytes.
    """

    def __init__(self, evaluations: list[Evaluation], reference: float, is_latency: bool):
        self.evaluations = evaluations
        self.reference = reference
        self.is_latency = is_latency

    def __len__(self) -> int:
        return len(self.evaluations)

    def __getitem__(self, index: Any) -> Any:
        return self.evaluations[index]

    def __iter__(self) -> Iterator[Evaluation]:
        return iter(self.evaluations)

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        return finite({"reference": self.reference, "front": [one.to_dict() for one in self]})

    def to_markdown(self) -> str:
        """Returns the front as a Markdown table."""
        return markdown_table(*self._table())

    def _repr_html_(self) -> str:
        return html_table(*self._table())

    def __str__(self) -> str:
        return text_table(*self._table())

    __repr__ = __str__

    def plot(self, ax: Any = None) -> Any:
        """Draws the metric over the cost, with the metric of the float model as a line.

        Args:
            ax: the axes of Matplotlib to draw on; `None` (default) makes a figure.

        Returns:
            The axes.

        Raises:
            ImportError: Matplotlib is not installed.
        """
        if ax is None:
            ax = axes()
        ax.plot([one.cost for one in self], [one.metric for one in self], "o-", label="Pareto front")
        ax.axhline(self.reference, linestyle="--", color="gray", label="float")
        ax.set_xlabel("latency, seconds" if self.is_latency else "bytes of the weights")
        ax.set_ylabel("metric")
        ax.grid(alpha=0.3)
        ax.legend()
        return ax

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                cost_text(one.cost, self.is_latency),
                f"{one.metric:.6g}",
                f"{one.metric - self.reference:+.4g}",
                decibels_text(float(decibels(1.0, one.noise))),
                one.counts,
            ]
            for one in self
        ]
        return ["latency" if self.is_latency else "weights", "metric", "beside float", "expected", "layers"], rows


class SearchResult:
    """What `search` found. Print it, or pass `.spec` to `quantize_model`.

    Attributes:
        name: the name of the model.
        budget: the budget, which prints as a clause.
        best: the `Evaluation` that was chosen.
        reference: the metric of the float model.
        evaluations: a list of all `Evaluation`, in the order in which they were made.
        front: the `Front` of all evaluations.
        sensitivity: the `Sensitivity` that the search went by.
    """

    def __init__(
        self,
        name: str,
        budget: Budget,
        best: Evaluation,
        reference: float,
        evaluations: list[Evaluation],
        front: Front,
        sensitivity: Sensitivity,
    ):
        self.name = name
        self.budget = budget
        self.best = best
        self.reference = reference
        self.evaluations = evaluations
        self.front = front
        self.sensitivity = sensitivity

    @property
    def spec(self) -> QuantizationSpec:
        """The `QuantizationSpec` that was found: `quantize_model(model, quantization_spec=result.spec, target=...)`."""
        return self.best.spec

    def to_dict(self) -> dict[str, Any]:
        """Returns a dict for JSON."""
        head = {"name": self.name, "budget": {self.budget.kind: self.budget.limit}, "best": self.best.to_dict()}
        return {
            **head,
            **self.front.to_dict(),
            "evaluations": [one.to_dict() for one in self.evaluations],
            "sensitivity": self.sensitivity.to_dict(),
        }

    def to_markdown(self) -> str:
        """Returns the chosen precisions and the front as Markdown tables."""
        return f"{self._head()}\n\n{markdown_table(*self._table())}\n\n{self.front.to_markdown()}"

    def _repr_html_(self) -> str:
        return html_summary(self._head(), *self._table()) + self.front._repr_html_()

    def __str__(self) -> str:
        return f"{self._head()}\n\n{text_table(*self._table())}\n\n{self.front}"

    __repr__ = __str__

    def _head(self) -> str:
        best = self.best
        return (
            f"Model {self.name!r}, for {self.budget}: metric {best.metric:.6g} (float {self.reference:.6g}), "
            f"{cost_text(best.cost, self.front.is_latency)}, after {len(self.evaluations)} evaluations"
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for path, precision in self.best.precisions.items():
            layer = self.sensitivity[path]
            alone = layer.snr.get(str(precision))
            rows.append([path, str(precision), f"{layer.weights:,}", "-" if alone is None else decibels_text(alone)])
        return ["layer", "precision", "weights", "alone"], rows
