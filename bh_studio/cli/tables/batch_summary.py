"""The numbers over all prompts that end `bh-studio compare --prompts-file`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from bh_studio.cli.tables.table import line, number, share
from bh_studio.engine.records.rows import AnswersSummary, PromptRow
from bh_studio.engine.records.terms import SIDE_NAMES
from bh_studio.engine.units import counted


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """Many prompts taken together; every token weighs the same, so a long answer weighs more.

    identical: prompts with the same answer twice. matching, positions: see Agreement.
    """

    prompts: int
    skipped: int
    sides: tuple[AnswersSummary, ...]
    matching: int
    positions: int
    identical: int

    @classmethod
    def of(cls, rows: Sequence[PromptRow], skipped: int) -> Self:
        """The summary of `rows`."""
        agreements = [row.agreement for row in rows]
        return cls(
            prompts=len(rows),
            skipped=skipped,
            sides=tuple(
                AnswersSummary.of([row.answers[side] for row in rows])
                for side in range(len(SIDE_NAMES))
            ),
            matching=sum(agreement.matching for agreement in agreements),
            positions=sum(agreement.positions for agreement in agreements),
            identical=sum(agreement.matching == agreement.positions for agreement in agreements),
        )

    @property
    def agreement(self) -> float | None:
        return self.matching / self.positions if self.positions else None

    def to_json(self) -> dict[str, Any]:
        """The numbers by name."""
        return {
            "prompts": self.prompts,
            "skipped": self.skipped,
            "agreement": self.agreement,
            "matching_tokens": self.matching,
            "identical_answers": self.identical,
            "sides": {
                name: side.to_json() for name, side in zip(SIDE_NAMES, self.sides, strict=True)
            },
        }

    def text(self, title: str = "BH") -> str:
        """The numbers as lines for a terminal. title: of the column beside the baseline's."""
        widths = (12, max(12, len(title) + 2))
        counts = [side.statistics for side in self.sides]
        table = (
            ("", ["baseline", title]),
            ("tokens", [str(c.tokens) for c in counts]),
            ("tokens per second", [number(side.tokens_per_second, 1) for side in self.sides]),
            ("mean experts", [number(c.mean, 2) for c in counts]),
            ("std of experts", [number(c.std, 2) for c in counts]),
            ("decided by min_k", [share(c.share_clamped_min) for c in counts]),
            ("decided by max_k", [share(c.share_clamped_max) for c in counts]),
        )
        layers = self.sides[1].statistics.per_layer_mean
        lines = ["", *(f"{label:24}{line(cells, widths)}" for label, cells in table)]
        lines += ["", f"{title}, mean experts of each layer (from 0):"]
        lines += ["  " + "  ".join(f"{mean:.1f}" for mean in layers), ""]
        lines.append(
            f"{counted(self.prompts, 'prompt')} done, {counted(self.skipped, 'row')} skipped."
        )
        if self.prompts:
            lines.append(
                f"The same token on both sides: {share(self.agreement)} of {self.positions} "
                f"positions; the same answer: {self.identical} of {self.prompts}."
            )
        return "\n".join(lines)
