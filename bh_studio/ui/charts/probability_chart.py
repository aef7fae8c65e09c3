"""How probable each token of an answer was when it was chosen, all sides over each other."""

from __future__ import annotations

import math

import numpy as np

from bh_studio.ui.charts.shown import ShownSide
from bh_studio.ui.charts.token_lines import TokenLines

# The lower end goes down by so many nats at a time, so that it keeps still.
_STEP = 5


class ProbabilityChart(TokenLines):
    """In nats, before temperature and top-p."""

    title = "Probability of tokens"
    meaning = (
        "Lines will show how probable each token of the answers was when it was chosen, before "
        "temperature and top-p: 0 is certain."
    )
    left_name = "Log-probability, nats"

    def values_of(self, side: ShownSide) -> np.ndarray | None:
        return None if side.choices is None else side.choices.log_probabilities

    def missing(self) -> str:
        return "How probable the tokens were was not kept of this run."

    def span(self) -> tuple[float, float]:
        lowest = min(float(self.drawn(side).min()) for side in self.known)
        return _STEP * min(math.floor(lowest / _STEP), -1), 0

    def hint(self) -> str:
        means = ", ".join(
            f"{side.name} {np.mean(self.drawn(side), dtype=np.float64):.2f}" for side in self.known
        )
        return f"Mean, nats: {means}"

    def number_words(self, side: ShownSide, token: int) -> str:
        assert side.choices is not None
        value, rank = float(self.drawn(side)[token]), int(side.choices.ranks[token])
        return f"{math.exp(value):.3f} ({value:.2f}, rank {rank})"

    def columns_of(self, side: ShownSide) -> tuple[tuple[str, np.ndarray], ...]:
        assert side.choices is not None
        return ("log-probability", self.drawn(side)), ("rank", side.choices.ranks)
