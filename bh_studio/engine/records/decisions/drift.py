"""Whether a text is like the one that the null was fitted on: a few numbers, and what they say.

`routing/drift.py` finds them. Knows no array and no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.rules.parameters import NullName
from bh_studio.engine.rules.sides import Sides, side_letter

# Of fewer tokens nothing is said.
LEAST_TOKENS = 64
# The share of a null that is called its highest scores: experts with p <= 0.05 there.
TAIL = 0.05


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the scores that the router discards on a text lie from those of the null.

    tokens: that were judged; the first positions are not, as in the null. distance: 0 where both
        are alike. limit: what it stays below on text like the calibration text, 99 times in 100.
        Both are None where the text, or the recording, is too short to tell.
    tail_shares: (layer,) share of the discarded scores that are among the TAIL highest of the
        layer's null. mean_places: (layer,) mean over them of the share of the null that lies
        below; 0.5 where both are alike.
    """

    tokens: int
    distance: float | None
    limit: float | None
    tail_shares: tuple[float, ...]
    mean_places: tuple[float, ...]

    @property
    def factor(self) -> float | None:
        """The distance over its limit; None where it is too short to tell."""
        if self.distance is None or self.limit is None:
            return None
        return self.distance / self.limit

    @property
    def is_unlike(self) -> bool:
        """Whether the text is unlike the one that the null was fitted on."""
        return self.distance is not None and self.limit is not None and self.distance > self.limit

    @property
    def verdict(self) -> str:
        """ "unlike", "like" or "too short to tell"."""
        if self.distance is None or self.limit is None:
            return "too short to tell"
        return "unlike" if self.is_unlike else "like"

    def to_json(self) -> dict[str, Any]:
        """The fields by name, and the verdict."""
        return {
            "verdict": self.verdict,
            "tokens": self.tokens,
            "distance": self.distance,
            "limit": self.limit,
            "tail_shares": list(self.tail_shares),
            "mean_places": list(self.mean_places),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """What to_json wrote. Raises KeyError, TypeError or ValueError for others."""
        fields = {**values}
        fields.pop("verdict", None)
        drift = convert(cls, fields, "drift")
        drift.check(len(drift.tail_shares))
        return drift

    def check(self, layers: int) -> None:
        """Raise ValueError for what cannot be said of a model with so many layers."""
        if not len(self.tail_shares) == len(self.mean_places) == layers:
            raise ValueError("its drift is not that of its layers.")
        distances = [value for value in (self.distance, self.limit) if value is not None]
        if (
            self.tokens < 0
            or len(distances) == 1
            or not all(0 <= share <= 1 for share in (*self.tail_shares, *self.mean_places))
            or not all(value >= 0 and math.isfinite(value) for value in distances)
            or self.limit == 0
        ):
            raise ValueError("its drift is none.")


class DriftWords(NamedTuple):
    """headline: what is so. details: how far, and what can be done. Both are empty where there is
    nothing to say."""

    headline: str = ""
    details: str = ""


def drift_words(sides: Sides, drifts: Sequence[Drift | None]) -> DriftWords:
    """What a person should know of the drift of each side.

    sides: their rules. Where none of them asks a null that was fitted, nothing is said.
    """
    unlike = {side: drift for side, drift in enumerate(drifts) if drift and drift.is_unlike}
    if not unlike or not have_fitted_null(sides):
        return DriftWords()
    whose = "This text"
    if len(unlike) < len(drifts):
        *former, last = map(side_letter, unlike)
        whose = f"The text of {', '.join(former)} and {last}" if former else f"The text of {last}"
    furthest = max(unlike.values(), key=lambda drift: drift.factor or 0.0)
    return DriftWords(
        f"{whose} is unlike the one the null was fitted on: levels and p-values do not carry over.",
        f"The scores that the router discards are {size_words(furthest)}. Compare rules on this "
        "text with bh-studio evaluate.",
    )


def have_fitted_null(sides: Sides) -> bool:
    """Whether any of these rules asks a null that was fitted on a calibration text."""
    return any(
        rule is not None and rule.is_test and rule.null not in (NullName.ROBUST, NullName.SOFTMAX)
        for rule in sides
    )


def size_words(drift: Drift) -> str:
    """How far the discarded scores of a text that is unlike are from the null's."""
    low, high = min(drift.tail_shares), max(drift.tail_shares)
    return (
        f"{drift.factor:.1f} times as far from the null's as those of like text get; "
        f"{low * 100:.1f} to {high * 100:.1f} % of them, by layer, are among the null's highest "
        f"{TAIL * 100:.0f} %"
    )
