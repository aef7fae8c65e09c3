"""The levels that a slider walks through, from what the catalogue says of a rule. No Qt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bh_studio.engine.rules import RuleParameters

STEPS = 1000
# What a level that lies between 0 and 1, both excluded, is tried at: beyond it nothing changes.
_LEAST, _MOST = 1e-5, 0.99
_DIGITS = 3


@dataclass(frozen=True, slots=True)
class LevelScale:
    """Levels from `low` to `high` in STEPS steps, `stored` among them exactly.

    is_log: equal steps are equal ratios. is_whole: only whole numbers are levels.
    """

    low: float
    high: float
    stored: float
    is_log: bool = False
    is_whole: bool = False

    @classmethod
    def of(cls, rule: RuleParameters, scores: np.ndarray) -> LevelScale:
        """The scale of a rule with one level. scores: of the experts it judges, which bound a level
        that may be any number; of any shape, (…, expert)."""
        levels = rule.entry.levels
        if isinstance(rule.level, tuple):
            raise ValueError("This rule has a level of its own for each layer.")
        stored = float(rule.level)
        if levels.is_whole:
            return cls(levels.low, max(stored, scores.shape[-1]), stored, is_whole=True)
        if not (levels.has_low or levels.has_high):
            return cls(min(_LEAST, stored), max(_MOST, stored), stored, is_log=True)
        if math.isfinite(levels.low):
            low = levels.low if levels.has_low else (levels.high - levels.low) / STEPS
            return cls(min(low, stored), levels.high, stored)
        known = [stored, *scores[np.isfinite(scores)].tolist()]
        low, high = min(known), max(known)
        return cls(low, high if high > low else low + 1.0, stored)

    def step_of(self, level: float) -> int:
        """The step that is nearest to `level`."""
        low, high, place = (math.log(v) if self.is_log else v for v in (self.low, self.high, level))
        return min(max(round(STEPS * (place - low) / (high - low)), 0), STEPS)

    def level_at(self, step: int) -> float:
        """The level of a step, in as many digits as a person would type."""
        if step == self.step_of(self.stored):
            return self.stored
        share = step / STEPS
        if self.is_log:
            level = self.low * (self.high / self.low) ** share
        else:
            level = self.low + (self.high - self.low) * share
        if self.is_whole:
            return float(round(level))
        return min(max(float(f"{level:.{_DIGITS}g}"), self.low), self.high)
