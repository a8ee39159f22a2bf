import pytest

from tensorflow_quantization.reporting.layout import HEIGHT, WIDTH, layered

CHAIN = [(0, 1), (1, 2), (2, 3)]
RESIDUAL = [(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)]


def overlap(a, b):
    return abs(a[0] - b[0]) < WIDTH and abs(a[1] - b[1]) < HEIGHT


def test_chain_is_one_straight_column():
    layout = layered(4, CHAIN)
    assert [x for x, _ in layout.nodes] == [0] * 4
    assert [y for _, y in layout.nodes] == sorted({y for _, y in layout.nodes})
    assert layout.width == WIDTH and layout.height == layout.nodes[-1][1] + HEIGHT


@pytest.mark.parametrize("edges", [RESIDUAL, [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (0, 4)]])
def test_edges_point_down_and_nodes_do_not_overlap(edges):
    layout = layered(5, edges)
    assert all(layout.nodes[a][1] + HEIGHT < layout.nodes[b][1] for a, b in edges)
    assert not any(overlap(layout.nodes[a], layout.nodes[b]) for a in range(5) for b in range(a))
    assert all(x >= 0 and x + WIDTH <= layout.width for x, _ in layout.nodes)


def test_long_edge_passes_beside_the_nodes_between():
    layout = layered(5, RESIDUAL)
    start, first, last, end = layout.routes[RESIDUAL.index((0, 3))]
    assert start == (layout.nodes[0][0] + WIDTH // 2, HEIGHT) and end[1] == layout.nodes[3][1]
    assert first[0] == last[0], "it passes in a straight line"
    assert not any(x <= first[0] <= x + WIDTH for x, y in layout.nodes if first[1] <= y <= last[1])


def test_constant_input_stands_above_its_reader():
    layout = layered(5, [(0, 1), (1, 2), (2, 4), (3, 4)])
    assert layout.nodes[3][1] == layout.nodes[2][1]


def test_edges_of_one_source_share_their_way():
    layout = layered(6, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 4), (0, 5)])
    shorter, longer = layout.routes[-2:]
    assert shorter[1] == longer[1]


def test_empty_graph_has_no_size():
    assert layered(0, []).nodes == [] and layered(0, []).height == 0


def test_large_graph_takes_linear_time():
    count = 3000
    edges = [(i, i + 1) for i in range(count - 1)] + [(i, i + 9) for i in range(0, count - 9, 3)] + [(0, count - 1)]
    assert len(layered(count, edges).nodes) == count  # in seconds, with an edge across all rows
