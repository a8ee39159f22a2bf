"""`proposals`: of all ways to give each layer a precision, those that no other way beats in cost and noise.

Noise is taken as additive: the errors of layers are nearly independent (arXiv:1905.03696 and many since). Then the
layers make a knapsack problem with several choices each, which dynamic programming over the layers solves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: So many ways are kept after each layer. More are thinned out, evenly over the costs.
_KEPT = 2000


@dataclass(frozen=True)
class Proposal:
    """One way to choose.

    Attributes:
        cost: the sum of the costs.
        noise: the sum of the noises.
        choices: the index of the choice of each layer, a tuple of int.
    """

    cost: float
    noise: float
    choices: tuple[int, ...]


def proposals(costs: Sequence[Sequence[float]], noises: Sequence[Sequence[float]], kept: int = _KEPT) -> list[Proposal]:
    """Returns the Pareto front of cost and noise, cheapest first. The noise falls from one to the next.

    It is exact as long as no more than `kept` ways are on the front after any layer.

    Examples:
        >>> [p.choices for p in proposals([[1, 4], [1, 4]], [[0.5, 0.0], [0.1, 0.0]])]
        [(0, 0), (1, 0), (1, 1)]

    Args:
        costs: for each layer, the cost of each choice.
        noises: for each layer, the noise of each choice.
        kept: int, the greatest number of ways that are kept.
    """
    front = [Proposal(0, 0.0, ())]
    for of_layer in zip(costs, noises, strict=True):
        choices = list(enumerate(zip(*of_layer, strict=True)))
        longer = [
            Proposal(way.cost + cost, way.noise + noise, (*way.choices, index))
            for way in front
            for index, (cost, noise) in choices
        ]
        front = _thinned(_undominated(longer), kept)
    return front


def _undominated(ways: list[Proposal]) -> list[Proposal]:
    found: list[Proposal] = []
    for way in sorted(ways, key=lambda way: (way.cost, way.noise, way.choices)):
        if not found or way.noise < found[-1].noise:
            found.append(way)
    return found


def _thinned(front: list[Proposal], kept: int) -> list[Proposal]:
    """Keeps both ends, and of each interval of costs the way with the least noise."""
    if len(front) <= kept:
        return front
    lowest, highest = front[0].cost, front[-1].cost
    bins = {int((way.cost - lowest) / (highest - lowest) * (kept - 2)): way for way in front[1:]}
    return [front[0], *bins.values()]
