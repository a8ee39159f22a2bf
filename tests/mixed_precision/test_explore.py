from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorflow_quantization.mixed_precision.explore import explore, pareto
from tensorflow_quantization.mixed_precision.learned import learned_drops


@dataclass
class One:
    cost: float
    metric: float


#: One layer of 100 choices: the cost rises from 0 to 99, the noise falls.
COSTS, NOISES = [list(range(100))], [[100 - i for i in range(100)]]


def steps(at):
    """A metric that rises from 0 to 1 at one choice."""
    return lambda way: One(way.cost, float(way.choices[0] >= at))


@pytest.mark.slow
@given(st.integers(0, 99))
def test_bisection_finds_the_cheapest_that_suffices(at):
    found = explore(COSTS, NOISES, steps(at), 18, reference=1, threshold=1)
    assert min(one.cost for one in found if one.metric == 1) == at


@pytest.mark.slow
@given(st.integers(1, 99))
def test_evaluations_go_where_the_metric_changes(at):
    found = explore(COSTS, NOISES, steps(at), 20, reference=1)
    assert {at - 1, at} <= {one.cost for one in found}


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 200])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_no_more_evaluations_than_allowed_and_none_twice(limit, threshold):
    asked = []

    def evaluate(way):
        asked.append(way.choices)
        return One(way.cost, -way.cost)

    explore(COSTS, NOISES, evaluate, limit, reference=0, threshold=threshold)
    assert len(asked) == len(set(asked)) <= limit


def test_nothing_is_evaluated_after_the_cheapest_suffices():
    assert len(explore(COSTS, NOISES, lambda way: One(way.cost, 1), 20, reference=1, threshold=1)) == 2


def test_what_is_not_allowed_is_not_evaluated():
    found = explore(COSTS, NOISES, steps(50), 20, reference=1, allowed=lambda way: way.cost <= 60)
    assert max(one.cost for one in found) == 60


def test_a_layer_that_hurts_less_than_its_noise_says_is_found_out():
    """Both layers have the same noise, only one hurts: in the second half, the other one is reduced."""
    costs, noises = [[10, 5], [10, 5.5]], [[0, 1], [0, 1]]
    found = explore(costs, noises, lambda way: One(way.cost, 1 - 0.9 * way.choices[0]), 6, 1, threshold=0.95)
    assert min(one.cost for one in found if one.metric >= 0.95) == 15.5


def test_pareto_keeps_what_nothing_beats():
    ones = [One(3, 5), One(1, 2), One(2, 2), One(2, 4), One(4, 5), One(1, 1)]
    assert [(one.cost, one.metric) for one in pareto(ones)] == [(1, 2), (2, 4), (3, 5)]


@given(st.data())
def test_learned_drops_are_the_mean_of_a_gaussian_in_information_form(data):
    """inv(inv(S) + X'X / chance) (inv(S) m + X'y / chance), which needs noise in every choice."""
    noise = st.floats(0.1, 10)
    noises = data.draw(st.lists(st.lists(noise, min_size=2, max_size=3), min_size=1, max_size=4))
    index = st.tuples(*(st.integers(0, len(layer) - 1) for layer in noises))
    evaluated = data.draw(st.lists(index, min_size=1, max_size=5))
    drops = data.draw(st.lists(st.floats(0.1, 10), min_size=len(evaluated), max_size=len(evaluated)))
    flat = np.concatenate(noises)
    x = np.array([[j == i for layer, i in zip(noises, e, strict=True) for j in range(len(layer))] for e in evaluated])
    x, y = x.astype(float), np.array(drops)
    mean = np.linalg.lstsq((x @ flat)[:, None], y, rcond=None)[0][0] * flat
    chance = np.mean((y - x @ mean) ** 2) / 2
    if chance < 1e-6:  # the information form divides by it
        return
    precision = np.diag(1 / mean**2)
    expected = np.linalg.solve(precision + x.T @ x / chance, precision @ mean + x.T @ y / chance)
    got = learned_drops(noises, evaluated, drops)
    np.testing.assert_allclose(np.concatenate(got), np.maximum(expected, 0), rtol=1e-5, atol=1e-6)
    assert list(map(len, got)) == list(map(len, noises))


@pytest.mark.parametrize("drops", [[-1.0], [0.0]])
def test_nothing_is_learned_where_noise_does_not_hurt(drops):
    assert learned_drops([[0, 1]], [(1,)], drops) == [[0, 1]]
