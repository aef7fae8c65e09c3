"""What a rule selects at every position that a side read. Knows arrays, no rule and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bh_studio.engine.records.counts import CountStatistics, count_statistics
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedSide:
    """The counts of `rule` on the router logits that a side recorded, as they are.

    Unless the rule is the side's own, later layers would differ in a real run: what an earlier one
    selects changes what they see.

    rule: None for the model's own routing. counts, raw_counts: (position, layer) uint8, after and
    before min_k and max_k. prompt_positions: how many of them, the first, are the prompt's but for
    its last, which is row 0 of the answer. equal_counts: (position, layer) pairs in which `counts`
    is what the side recorded. shortage: a sentence if the null is too small for the level.
    """

    rule: RuleParameters | None
    counts: np.ndarray
    raw_counts: np.ndarray
    prompt_positions: int
    equal_counts: int
    shortage: str | None

    @property
    def answer(self) -> CountStatistics:
        """Of the positions whose output predicted a token of the answer."""
        rows = slice(self.prompt_positions, None)
        return count_statistics(self.counts[rows], self.raw_counts[rows])

    @property
    def prompt(self) -> CountStatistics:
        """Of the other positions."""
        rows = slice(self.prompt_positions)
        return count_statistics(self.counts[rows], self.raw_counts[rows])

    @property
    def is_equal(self) -> bool:
        """Whether every count is what the side recorded."""
        return self.equal_counts == self.counts.size

    def to_json(self) -> dict[str, Any]:
        """The numbers by name, without the counts of single positions."""
        return {
            "rule": None if self.rule is None else format_rule(self.rule),
            "statistics": {"answer": self.answer.to_dict(), "prompt": self.prompt.to_dict()},
            "counts": int(self.counts.size),
            "equal_counts": self.equal_counts,
            "shortage": self.shortage,
        }
