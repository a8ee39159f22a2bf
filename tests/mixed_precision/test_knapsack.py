import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorflow_quantization.mixed_precision.knapsack import proposals

#: (cost, noise) of each choice of each layer.
LAYERS = st.lists(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4), min_size=1, max_size=5
)


@given(LAYERS)
def test_the_front_is_that_of_all_ways(layers):
    found = proposals(*([[choice[i] for choice in layer] for layer in layers] for i in (0, 1)))
    ways = {tuple(map(sum, zip(*way, strict=True))) for way in itertools.product(*layers)}
    best = {cost: min(noise for c, noise in ways if c <= cost) for cost, _ in ways}
    expected = sorted((c, n) for c, n in ways if n == best[c] and not any(c2 < c and n2 <= n for c2, n2 in ways))
    assert [(way.cost, way.noise) for way in found] == expected
    for way in found:
        chosen = [layer[i] for layer, i in zip(layers, way.choices, strict=True)]
        assert tuple(map(sum, zip(*chosen, strict=True))) == (way.cost, way.noise)


@given(LAYERS)
def test_a_thinned_front_keeps_its_ends_and_sums(layers):
    costs, noises = ([[choice[i] for choice in layer] for layer in layers] for i in (0, 1))
    found, exact = proposals(costs, noises, kept=4), proposals(costs, noises)
    assert len(found) <= 4
    assert found[0].cost == exact[0].cost
    assert found == sorted(found, key=lambda way: way.cost)
    for way in found:
        assert way.noise == pytest.approx(sum(noise[i] for noise, i in zip(noises, way.choices, strict=True)))


def test_many_layers_take_moderate_time():
    costs = [[4 * (37 * i % 101 + 1), 37 * i % 101 + 1, (37 * i % 101 + 1) / 2] for i in range(100)]
    noises = [[0.0, 1e-5 * (i % 7 + 1), 1e-3 * (i % 13 + 1)] for i in range(100)]
    found = proposals(costs, noises)
    assert 500 < len(found) <= 2000
    assert found[-1].noise == 0
