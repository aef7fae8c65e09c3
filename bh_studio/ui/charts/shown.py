"""What charts draw: all sides of a run as they were at one moment. Knows no widget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from bh_studio.engine.records.counts import CountStatistics
from bh_studio.engine.records.decisions.token_choices import TokenChoices
from bh_studio.ui.state.inspection.null_fits import NullFits
from bh_studio.ui.state.reading.written_kl import WrittenKl
from bh_studio.ui.state.run_model import RunModel, RunSide
from bh_studio.ui.state.run_sides import Parting, RunSides


@dataclass(frozen=True, slots=True, eq=False)
class ShownSide:
    """One side, without a copy: what a run has is only added to, never changed.

    number: of the side, from 0. name: its letter. epoch, counts, raw_counts, statistics, choices,
    kl, experts, first_number: as RunModel has them; experts are its routed_experts. texts: of its
    tokens and of those that have come since. parting: from the first side.
    """

    number: int
    name: str
    about: RunSide
    epoch: int
    is_running: bool
    counts: np.ndarray
    raw_counts: np.ndarray
    statistics: CountStatistics
    texts: Sequence[str]
    choices: TokenChoices | None
    kl: np.ndarray | None
    experts: np.ndarray | None
    parting: Parting
    first_number: int

    @classmethod
    def of(cls, number: int, run: RunModel, about: RunSide, parting: Parting) -> Self:
        """The side as it is now."""
        return cls(
            number=number,
            name=run.name,
            about=about,
            epoch=run.epoch,
            is_running=run.is_running,
            counts=run.counts,
            raw_counts=run.raw_counts,
            statistics=run.statistics,
            texts=run.token_texts,
            choices=run.choices,
            kl=run.kl,
            experts=run.routed_experts,
            parting=parting,
            first_number=run.first_number,
        )

    @property
    def tokens(self) -> int:
        """Tokens that it had."""
        return len(self.counts)

    @property
    def most_tokens(self) -> int:
        """Tokens that there is to be room for, so that a picture keeps still during a run."""
        return self.about.most_tokens if self.is_running else self.tokens

    @property
    def is_own(self) -> bool:
        """Whether it has the model's own routing."""
        return self.about.rule is None

    @property
    def title(self) -> str:
        """Its letter, and whether its rule only counted what it would have used."""
        return f"{self.name} (counted only)" if self.about.note else self.name

    @property
    def possible(self) -> tuple[int, int]:
        """The fewest and the most experts that it could use in a layer."""
        rule = self.about.rule
        if rule is not None and self.about.can_be_limited:
            return rule.min_k, rule.max_k
        return 0, self.about.model.experts


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """sides: those of the run on screen that have been begun; none before the first run. nulls: who
    knows how well their nulls fit, which no run changes; None where nobody does. written_kl: who
    has KL measured of what the sides on screen wrote; None where nobody does."""

    sides: tuple[ShownSide, ...] = ()
    nulls: NullFits | None = None
    written_kl: WrittenKl | None = None

    @classmethod
    def of(
        cls,
        sides: RunSides,
        nulls: NullFits | None = None,
        written_kl: WrittenKl | None = None,
    ) -> Self:
        """All sides as they are now."""
        return cls(
            tuple(
                ShownSide.of(number, run, run.about, parting)
                for number, (run, parting) in enumerate(
                    zip(sides.runs, sides.partings, strict=True)
                )
                if run.about is not None
            ),
            nulls,
            written_kl,
        )

    def is_of(self, sides: RunSides) -> bool:
        """Whether this is of the run that is on screen, as it was or as it is."""
        now = tuple(run.epoch for run in sides.runs)
        return now == tuple(side.epoch for side in self.sides)

    @property
    def written(self) -> tuple[ShownSide, ...]:
        """The sides that have tokens."""
        return tuple(side for side in self.sides if side.tokens)

    @property
    def first_number(self) -> int:
        """What the first token of each side is counted as for people."""
        return self.sides[0].first_number if self.sides else 0

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return self.sides[0].about.model.layers if self.sides else 0

    @property
    def top_k(self) -> int:
        """Experts that the model's own routing uses in each layer."""
        return self.sides[0].about.model.top_k if self.sides else 0
