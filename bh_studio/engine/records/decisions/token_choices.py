"""How probable the model held the tokens that were chosen, and what it held most probable instead.

Knows arrays, no model and no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

# The most probable tokens that are kept of each choice, the chosen one among them or not.
ALTERNATIVES = 5


class TokenChoice(NamedTuple):
    """One row of TokenChoices."""

    log_probability: float
    rank: int
    top_ids: np.ndarray
    top_log_probabilities: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class TokenChoices:
    """What the model said where each token was chosen, before temperature and top-p.

    log_probabilities: (token,) float32, nats, of the token that was chosen. ranks: (token,) int32,
    its place among all tokens by probability, from 1; equally probable tokens share the best place.
    top_ids, top_log_probabilities: (token, alternative) int32 and float32, the ALTERNATIVES most
    probable tokens, or all of a smaller vocabulary, the most probable first.
    """

    log_probabilities: np.ndarray
    ranks: np.ndarray
    top_ids: np.ndarray
    top_log_probabilities: np.ndarray

    @classmethod
    def of(cls, choices: Sequence[TokenChoice]) -> Self:
        """The choices one below the other; what is too large becomes infinite.

        Raises ValueError for choices with different numbers of alternatives.
        """
        alternatives = len(choices[0].top_ids) if choices else 0
        if any(len(values) != alternatives for choice in choices for values in choice[2:]):
            raise ValueError("its choices have not one number of alternatives.")
        shape = (len(choices), alternatives)
        with np.errstate(over="ignore"):
            return cls(
                np.array([choice.log_probability for choice in choices], np.float32),
                np.array([choice.rank for choice in choices], np.int32),
                np.array([choice.top_ids for choice in choices], np.int32).reshape(shape),
                np.array([c.top_log_probabilities for c in choices], np.float32).reshape(shape),
            )

    def check(self, tokens: int) -> None:
        """Raise ValueError for what cannot be said of so many tokens."""
        alternatives = self.top_ids.shape[-1]
        shapes = self.log_probabilities.shape, self.ranks.shape, self.top_ids.shape
        if shapes != ((tokens,), (tokens,), (tokens, alternatives)) or alternatives > ALTERNATIVES:
            raise ValueError("its choices are not those of its tokens.")
        if self.top_log_probabilities.shape != self.top_ids.shape:
            raise ValueError("its alternatives have not one probability each.")
        for values in (self.log_probabilities, self.top_log_probabilities):
            # Float32 may round the logarithm of a probability of 1 to a little above 0.
            if not (np.isfinite(values).all() and values.max(initial=0.0) < 1e-3):
                raise ValueError("its probabilities are none.")
        if self.ranks.min(initial=1) < 1 or self.top_ids.min(initial=0) < 0:
            raise ValueError("its ranks or alternatives are none.")
