"""`explore`: which ways to choose are really evaluated, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from tensorflow_quantization.mixed_precision.knapsack import Proposal, proposals
from tensorflow_quantization.mixed_precision.learned import learned_drops


class Measured(Protocol):
    """What an evaluation found."""

    @property
    def metric(self) -> float: ...

    @property
    def cost(self) -> float: ...


M = TypeVar("M", bound=Measured)
Costs = Sequence[Sequence[float]]


def explore(
    costs: Costs,
    noises: Costs,
    evaluate: Callable[[Proposal], M],
    limit: int,
    reference: float,
    threshold: float | None = None,
    allowed: Callable[[Proposal], bool] = lambda way: True,
) -> list[M]:
    """Evaluates some ways to choose, and learns from each.

    The first half of the evaluations are of ways that no other way beats in cost and noise. With a threshold, they
    look for the cheapest way that reaches it, by bisection. The rest, and all of them without a threshold, fill the
    widest gaps between two evaluated neighbours, in metric times cost.

    The second half corrects the noises by what was evaluated. Of the ways that are then best, and of those that differ
    in one layer from the best ones found, it asks for the one that promises most: the cheapest that should reach the
    threshold, or the greatest gain over what was found at no more cost.

    Args:
        costs, noises: for each layer, the cost and the noise of each choice.
        evaluate: evaluates a way.
        limit: int, the greatest number of evaluations.
        reference: the metric without noise.
        threshold: the metric that suffices; `None` (default): none.
        allowed: whether a way may be evaluated; default: any.

    Returns:
        What was found, in the order of the evaluations.
    """
    ways = list(filter(allowed, proposals(costs, noises)))
    found: dict[Proposal, M] = {}

    def ask(way: Proposal) -> M:
        if way not in found:
            found[way] = evaluate(way)
        return found[way]

    def is_enough(one: M) -> bool:
        return threshold is not None and one.metric >= threshold

    for end in [ways[-1], ways[0]][:limit]:
        ask(end)
    if ways[0] in found and is_enough(found[ways[0]]):
        return list(found.values())  # nothing is cheaper
    if threshold is not None:
        low, high = 0, len(ways) - 1
        while high - low > 1 and len(found) < limit // 2:
            middle = (low + high) // 2
            low, high = (low, middle) if is_enough(ask(ways[middle])) else (middle, high)
    while len(found) < limit // 2 and (way := _in_the_widest_gap(ways, found)) is not None:
        ask(way)
    while len(found) < limit:
        drops = learned_drops(noises, [way.choices for way in found], [reference - m.metric for m in found.values()])
        known = {way.choices for way in found}
        near = _neighbours([way for way, one in found.items() if one in pareto(list(found.values()))], costs, drops)
        waiting = [way for way in [*proposals(costs, drops), *near] if way.choices not in known and allowed(way)]
        if not waiting:
            break
        ask(_most_promising(waiting, found, reference, threshold))
    return list(found.values())


def _in_the_widest_gap(ways: list[Proposal], found: dict[Proposal, M]) -> Proposal | None:
    known = [index for index, way in enumerate(ways) if way in found]
    gaps = [(low, high) for low, high in itertools.pairwise(known) if high - low > 1]

    def width(gap: tuple[int, int]) -> tuple[float, int]:
        low, high = (ways[index] for index in gap)
        return max(found[high].metric - found[low].metric, 0.0) * (high.cost - low.cost), gap[1] - gap[0]

    if not gaps:
        return None
    low, high = max(gaps, key=width)
    return ways[(low + high) // 2]


def _neighbours(ways: list[Proposal], costs: Costs, drops: Costs) -> list[Proposal]:
    """Returns the ways that differ from one of `ways` in one layer."""
    found = []
    for way, (layer, own) in itertools.product(ways, enumerate(costs)):
        for index in range(len(own)):
            choices = (*way.choices[:layer], index, *way.choices[layer + 1 :])
            cost, drop = (sum(x[i] for x, i in zip(table, choices, strict=True)) for table in (costs, drops))
            found.append(Proposal(cost, drop, choices))
    return found


def _most_promising(
    waiting: list[Proposal], found: dict[Proposal, M], reference: float, threshold: float | None
) -> Proposal:
    """Returns the way to evaluate next; the noise of the waiting ways is the drop of the metric that is expected."""
    if threshold is not None:
        best = min((way.cost for way, one in found.items() if one.metric >= threshold), default=float("inf"))
        waiting = [way for way in waiting if way.cost < best] or waiting
        enough = [way for way in waiting if reference - way.noise >= threshold]
        return min(enough, key=lambda way: way.cost) if enough else min(waiting, key=lambda way: way.noise)

    def gain(way: Proposal) -> float:
        reached = max((one.metric for other, one in found.items() if other.cost <= way.cost), default=-float("inf"))
        return reference - way.noise - reached

    return max(waiting, key=gain)


def pareto(measured: Sequence[M]) -> list[M]:
    """Returns what nothing else beats in cost and metric, cheapest first."""
    front: list[M] = []
    for one in sorted(measured, key=lambda one: (one.cost, -one.metric)):
        if not front or one.metric > front[-1].metric:
            front.append(one)
    return front
