"""What predictions are worth once each contender has the temperature that suits it best.

Where a model is surer of itself than it should be, whatever flattens its predictions lowers the
loss, damage included. Temperature scaling (Guo et al. 2017) takes that gain away: the vocabulary
logits of each contender are divided by one number. It is fitted on the other windows, so that no
window is judged by a number that has seen it. Knows arrays only.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

# Where losses are measured: evenly spaced in the logarithm.
TEMPERATURES = np.exp(np.arange(-5, 11) / 10)
# Between two of them the loss is the polynomial through the five nearest.
_NODES, _BETWEEN = 5, 200
_PLACES = np.linspace(0, len(TEMPERATURES) - 1, _BETWEEN * (len(TEMPERATURES) - 1) + 1)


class ScaledNats(NamedTuple):
    """nats: (window,), the sums of each window at the temperature that the others ask for.
    temperature: the one that all windows together ask for."""

    nats: np.ndarray
    temperature: float


def scaled_nats(nats: np.ndarray) -> ScaledNats:
    """nats: (window, temperature) sums of -ln p of the true tokens at TEMPERATURES.

    Raises ValueError for fewer than two windows: there is none to fit on.
    """
    if len(nats) < 2:
        raise ValueError("A temperature is fitted on other windows, and there is but one.")
    fine = nats @ _weights()  # (window, place)
    total = fine.sum(0)
    of_others = (total - fine).argmin(1)
    logs = np.interp(_PLACES, np.arange(len(TEMPERATURES)), np.log(TEMPERATURES))
    return ScaledNats(
        fine[np.arange(len(fine)), of_others], float(np.exp(logs[int(total.argmin())]))
    )


@functools.cache
def _weights() -> np.ndarray:
    """(temperature, place), what each measured loss counts at a place between them (Lagrange)."""
    weights = np.zeros((len(TEMPERATURES), len(_PLACES)))
    for column, place in enumerate(_PLACES):
        first = min(max(round(place) - _NODES // 2, 0), len(TEMPERATURES) - _NODES)
        nodes = range(first, first + _NODES)
        for node in nodes:
            weights[node, column] = np.prod([(place - m) / (node - m) for m in nodes if m != node])
    return weights
