"""`Budget`: what a mixed-precision network may cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from tensorflow_quantization.text.messages import must_be_one_of

DROP, BYTES, LATENCY = "drop", "bytes", "latency"


@dataclass(frozen=True)
class Budget:
    """The limit of one quantity.

    Attributes:
        kind: "drop", "bytes" or "latency".
        limit: in units of what `evaluate` returns, in bytes, or in seconds.
    """

    kind: str
    limit: float

    def __str__(self) -> str:
        if self.kind == DROP:
            return f"a drop of at most {self.limit:g}"
        return f"at most {cost_text(self.limit, self.kind == LATENCY)}"


def cost_text(cost: float, is_latency: bool) -> str:
    """Returns a cost as a cell of a table."""
    return f"{1e3 * cost:.3f} ms" if is_latency else f"{cost:,.0f} bytes"


def parse_budget(budget: Any) -> Budget:
    """Returns the budget that a user passed as a dict with one entry.

    Raises:
        TypeError: it is no dict, or its value is no number.
        ValueError: it has not one entry, its key is unknown, or its value is out of range.
    """
    example = 'Pass one limit, such as {"drop": 0.01}, {"bytes": 500_000} or {"latency": 0.005}.'
    if not isinstance(budget, Mapping):
        raise TypeError(f"budget must be a dict, got {budget!r}. {example}")
    if len(budget) != 1:
        raise ValueError(f"budget must have one entry, got {dict(budget)!r}. {example}")
    ((kind, limit),) = budget.items()
    if kind not in (DROP, BYTES, LATENCY):
        raise ValueError(must_be_one_of("The key of budget", (DROP, BYTES, LATENCY), kind))
    if isinstance(limit, bool) or not isinstance(limit, Real):
        raise TypeError(f"The {kind} of budget must be a number, got {limit!r}.")
    limit = float(limit)
    if not (math.isfinite(limit) and (limit > 0 or (limit == 0 and kind == DROP))):
        raise ValueError(
            f"The {kind} of budget must be finite and {'at least' if kind == DROP else 'above'} 0, got {limit!r}."
        )
    return Budget(kind, limit)
