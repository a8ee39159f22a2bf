"""`learned_drops`: what each choice really costs in the metric, from the evaluations so far."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def learned_drops(
    noises: Sequence[Sequence[float]], evaluated: Sequence[Sequence[int]], drops: Sequence[float]
) -> list[list[float]]:
    """Returns the expected drop of the metric for each choice of each layer.

    Before any evaluation, the drop of a choice is taken as proportional to its noise, with a standard deviation as
    large as itself. A drop of the whole network is the sum over its layers, and chance. Then the expected drops, given
    those that were evaluated, are a linear regression (Rasmussen and Williams 2006, equation 2.8).

    Examples:
        >>> learned = learned_drops([[0, 1], [0, 1]], [(1, 0), (0, 1)], [3.0, 1.0])
        >>> learned[0][1] > 2 > learned[1][1]
        True

    Args:
        noises: for each layer, the noise of each choice.
        evaluated: the index of the choice of each layer, for each evaluation.
        drops: the drop of the metric in each evaluation.
    """
    noise = np.concatenate([np.asarray(layer, np.float64) for layer in noises])
    starts = np.cumsum([0, *(len(layer) for layer in noises)])
    chosen = np.zeros((len(evaluated), len(noise)))
    for row, choices in zip(chosen, evaluated, strict=True):
        row[starts[:-1] + np.asarray(choices)] = 1
    totals, seen = chosen @ noise, np.asarray(drops, np.float64)
    power = totals @ totals
    scale = totals @ seen / power if power > 0 else 0.0
    if scale <= 0:  # more noise does not hurt: nothing is learned
        return [list(map(float, layer)) for layer in noises]
    prior = scale * noise
    residual = seen - chosen @ prior
    # Of what the noise does not explain, half counts as chance.
    chance = max(float(np.mean(residual**2)) / 2, np.finfo(np.float64).tiny)
    spread = chosen * prior**2
    covariance = spread @ chosen.T + chance * np.eye(len(seen))
    learned = np.maximum(prior + spread.T @ np.linalg.lstsq(covariance, residual, rcond=None)[0], 0.0)
    return [learned[a:b].tolist() for a, b in itertools.pairwise(starts)]
