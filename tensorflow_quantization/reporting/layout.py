"""`layered`: where the nodes of a graph stand, and the ways of its edges, computed in time linear in the graph.

The three steps of Sugiyama et al. (1981): nodes get rows, so that edges point down; the order in a row follows the
neighbours' (barycenters); positions are the least squares of the distances to neighbours. A long edge passes each row
at a point of its own, and the edges from one node share these points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

#: Of a node, and between nodes and rows, in pixels.
WIDTH, HEIGHT = 176, 44
_GAP, _ROW_GAP = 20, 30
#: The room of an edge that passes a row.
_LANE = 18
#: Sweeps over all rows, to order and to place.
_ORDERING, _PLACING = 8, 10
#: What is pulled straight: weights of segments between two nodes, a node and a passing point, two such points.
_STRAIGHTNESS = (8.0, 1.0, 8.0)


@dataclass(frozen=True)
class Layout:
    """The result of `layered`, in whole pixels.

    Attributes:
        nodes: the left upper corner (x, y) of each node.
        routes: the points of each edge, from the lower side of its source to the upper side of its target; a curve
            leads to each second point, a vertical line to the others.
        width, height: of the whole.
    """

    nodes: list[tuple[int, int]]
    routes: list[list[tuple[int, int]]]
    width: int
    height: int


def layered(count: int, edges: Sequence[tuple[int, int]]) -> Layout:
    """Returns the layout of a graph without cycles, from top to bottom.

    Args:
        count: the number of nodes, in topological order.
        edges: pairs of the source and the target.

    Examples:
        >>> layout = layered(3, [(0, 1), (0, 2)])
        >>> (top, _), (left, y), (right, _) = layout.nodes
        >>> left < top < right, y
        (True, 74)
    """
    row_of = _rows(count, edges)
    graph = _Graph(count, edges, row_of)
    rows = _ordered(graph)
    x = _placed(graph, rows)
    left = min((x[i] - graph.width(i) / 2 for i in range(len(x))), default=0)
    right = max((x[i] + graph.width(i) / 2 for i in range(len(x))), default=0)

    def point(item: int) -> tuple[int, int]:
        return round(x[item] - left), graph.row[item] * (HEIGHT + _ROW_GAP)

    nodes = [(px - WIDTH // 2, py) for px, py in map(point, range(count))]
    routes = [_route([point(item) for item in graph.path(*edge)]) for edge in edges]
    return Layout(nodes, routes, round(right - left), len(rows) * (HEIGHT + _ROW_GAP) - _ROW_GAP if rows else 0)


def _rows(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The row of each node: the longest way from a source; a source is in the row before its first reader's."""
    sources, targets = defaultdict(list), defaultdict(list)
    for source, target in edges:
        sources[target].append(source)
        targets[source].append(target)
    row = [0] * count
    for node in range(count):
        row[node] = max((row[source] + 1 for source in sources[node]), default=0)
    for node in range(count):
        if not sources[node] and targets[node]:
            row[node] = min(row[target] for target in targets[node]) - 1
    return row


class _Graph:
    """Nodes and the points at which long edges pass rows, called items; segments join items of neighbouring rows."""

    def __init__(self, count: int, edges: Sequence[tuple[int, int]], row: list[int]):
        self.count, self.row = count, list(row)
        self.above: dict[int, list[int]] = defaultdict(list)
        self.below: dict[int, list[int]] = defaultdict(list)
        self._lanes: dict[int, list[int]] = defaultdict(list)
        for source, target in dict.fromkeys(edges):
            *_, last = self.path(source, target)[:-1]
            self.above[target].append(last)
            self.below[last].append(target)

    def path(self, source: int, target: int) -> list[int]:
        """The items of an edge."""
        lane, needed = self._lanes[source], self.row[target] - self.row[source] - 1
        while len(lane) < needed:
            before = lane[-1] if lane else source
            item = len(self.row)
            self.row.append(self.row[before] + 1)
            self.below[before].append(item)
            self.above[item].append(before)
            lane.append(item)
        return [source, *lane[:needed], target]

    def width(self, item: int) -> int:
        return WIDTH if item < self.count else _LANE

    def weight(self, a: int, b: int) -> float:
        return _STRAIGHTNESS[(a >= self.count) + (b >= self.count)]


def _ordered(graph: _Graph) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max(graph.row, default=-1) + 1)]
    for item, of_item in enumerate(graph.row):
        rows[of_item].append(item)
    position = {item: float(index) for row in rows for index, item in enumerate(row)}
    for sweep in range(_ORDERING):
        neighbours = graph.below if sweep % 2 else graph.above
        for row in reversed(rows) if sweep % 2 else rows:
            centers = {i: _mean([position[n] for n in neighbours[i]], position[i]) for i in row}
            row.sort(key=lambda item: centers[item])
            # Rows are centered, so that positions in rows of different lengths compare.
            position.update({item: index - (len(row) - 1) / 2 for index, item in enumerate(row)})
    return rows


def _placed(graph: _Graph, rows: list[list[int]]) -> list[float]:
    """The centers of all items."""
    x = [0.0] * len(graph.row)
    for row in rows:
        _place(graph, row, dict.fromkeys(row, 0.0), dict.fromkeys(row, 1.0), x)
    for sweep in range(_PLACING):
        last = sweep >= _PLACING - 2
        for row in reversed(rows) if sweep % 2 else rows:
            wanted, weights = {}, {}
            for item in row:
                near = graph.below[item] if sweep % 2 else graph.above[item]
                near = [*graph.above[item], *graph.below[item]] if last or not near else near
                by_weight = [(graph.weight(item, other), x[other]) for other in near]
                weights[item] = sum(weight for weight, _ in by_weight) or 0.01
                wanted[item] = sum(w * at for w, at in by_weight) / weights[item] if by_weight else x[item]
            _place(graph, row, wanted, weights, x)
    return x


def _place(graph: _Graph, row: list[int], wanted: dict[int, float], weights: dict[int, float], x: list[float]) -> None:
    """Sets the positions in a row: the least squares of the distances to the wanted, such that items do not overlap.

    Without the room that the items before take, positions must not decrease: an isotonic regression, which pools
    adjacent violators.
    """
    offsets, offset = [], 0.0
    for before, item in zip([None, *row], row, strict=False):
        if before is not None:
            offset += (graph.width(before) + graph.width(item)) / 2 + _GAP * (min(before, item) < graph.count)
        offsets.append(offset)
    blocks: list[list[float]] = []  # the mean, the weight, the number of items
    for item, offset in zip(row, offsets, strict=True):
        blocks.append([wanted[item] - offset, weights[item], 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, weight_a, n), (b, weight_b, m) = blocks[-2:]
            weight = weight_a + weight_b
            blocks[-2:] = [[(a * weight_a + b * weight_b) / weight, weight, n + m]]
    means = [mean for mean, _, n in blocks for _ in range(int(n))]
    for item, mean, offset in zip(row, means, offsets, strict=True):
        x[item] = mean + offset


def _route(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The points of an edge from those of its items: passing points below each other become one line."""
    (x, y), *passed, end = points
    route = [(x, y + HEIGHT)]
    index = 0
    while index < len(passed):
        first = last = passed[index]
        while index + 1 < len(passed) and passed[index + 1][0] == first[0]:
            index += 1
            last = passed[index]
        route += [first, (last[0], last[1] + HEIGHT)]
        index += 1
    return [*route, end]


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default
