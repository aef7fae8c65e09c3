"""What the background of a token can say: of each tint its values, its colours and its words.

One place decides what is shown of a run and in which colour; the text, the legend and the menu ask
it. QtGui colours only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
from PySide6.QtGui import QColor

from bh_studio.ui.state.reading.obstacle import Obstacle
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.tints.quiet_scale import QuietScale


class TintScale(Protocol):
    """Colours behind text, the same for all sides of a run."""

    def tint(self, value: float, background: QColor) -> QColor:
        """Colour of a value on `background`."""

    def tint_at(self, place: float, background: QColor) -> QColor:
        """Colour at a place of the scale, from 0 to 1."""

    def labels(self, at_most: int) -> list[tuple[float, str]]:
        """Places on it and what is written there, both ends first to be kept."""


class Tint:
    """A subclass says what a value is and where it comes from.

    name: under which it is remembered. title: in the menu, with its key. unit: of its values.
    meaning: of the colours, a sentence. obstacle: why a run may have no values of it, and never
    will; None if every run has them or can.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = ""
    meaning: ClassVar[str]
    obstacle: ClassVar[Obstacle | None] = None

    def is_known(self, run: RunModel) -> bool:
        """Whether `run` has values of it."""
        return True

    def values(self, run: RunModel, start: int = 0) -> np.ndarray:
        """(token,) floating, for the tokens from `start` on; nan for one that is left plain."""
        raise NotImplementedError

    def scale(self, run: RunModel) -> TintScale:
        """The colours of its values, the same for all sides."""
        raise NotImplementedError

    def words(self, run: RunModel, token: int) -> str:
        """What is known of one token, a line; empty if nothing is."""
        raise NotImplementedError

    def obstacle_of(self, runs: Sequence[RunModel]) -> Obstacle | None:
        """Why none of `runs` can ever be tinted so; None if one can, or nothing is written yet."""
        written = [run for run in runs if run.token_count]
        return self.obstacle if written and not any(map(self.is_known, written)) else None

    def colors(self, run: RunModel, start: int, background: QColor) -> list[QColor]:
        """What stands behind the tokens from `start` on; `background` behind those left plain."""
        scale = self.scale(run)
        known: dict[float, QColor] = {}
        found = []
        for value in self.values(run, start).tolist():
            if math.isnan(value):
                found.append(background)
                continue
            if value not in known:
                known[value] = scale.tint(value, background)
            found.append(known[value])
        return found


class Experts(Tint):
    """Mean experts over the layers. A side with the model's own routing has the same number
    everywhere, by definition: it is left plain, so that it is quiet beside the others."""

    name, title = "experts", "&Experts"
    meaning = (
        "Mean experts of a token over its layers. A side with the model's own routing takes the "
        "same number everywhere, so it is left plain."
    )

    def values(self, run: RunModel, start: int = 0) -> np.ndarray:
        means = run.token_means(start)
        is_own = run.about is not None and run.about.rule is None
        return np.full(len(means), np.nan) if is_own else means

    def scale(self, run: RunModel) -> TintScale:
        return run.scale

    def words(self, run: RunModel, token: int) -> str:
        counts = run.counts[token]
        counted = " (counted only)" if run.is_counted_only else ""
        return (
            f"Experts{counted}, mean over {len(counts)} layers: {counts.mean():.2f}\n"
            f"Fewest and most in a layer: {counts.min()} and {counts.max()}"
        )


class _OfChoices(Tint):
    """What is known of a token from the probabilities by which it was chosen."""

    obstacle = Obstacle(
        "not kept of this run",
        "How probable the tokens were was not kept of this run; run its prompt again to see it.",
    )

    def is_known(self, run: RunModel) -> bool:
        return run.choices is not None


class Surprise(_OfChoices):
    """-log p of each token, in nats, as all probabilities of the program are."""

    name, title, unit = "surprise", "&Surprise", "nats"
    meaning = (
        "Surprise of a token, -log p in nats, by its own side's probabilities before temperature "
        "and top-p: 0 was certain, 0.7 one of two, 2.3 one of ten."
    )
    _SCALE = QuietScale(0.0, 8.0, (0, 2, 4, 6, 8))

    def values(self, run: RunModel, start: int = 0) -> np.ndarray:
        if run.choices is None:
            return _plain(run, start)
        return -run.choices.log_probabilities[start:].astype(np.float64)

    def scale(self, run: RunModel) -> TintScale:
        return self._SCALE

    def words(self, run: RunModel, token: int) -> str:
        if run.choices is None:
            return ""
        value = float(run.choices.log_probabilities[token])
        # Float32 may round the logarithm of 1 to a little above 0.
        return f"Surprise: {max(-value, 0.0):.2f} nats, probability {min(math.exp(value), 1.0):.3g}"


class Rank(_OfChoices):
    """The place of each token by its own side's probabilities."""

    name, title = "rank", "&Rank"
    meaning = (
        "Rank of a token by its own side's probabilities: 1 was the most probable. Equal steps of "
        "colour are equal ratios."
    )
    _SCALE = QuietScale(1.0, 1000.0, (1, 10, 100, 1000), is_log=True)

    def values(self, run: RunModel, start: int = 0) -> np.ndarray:
        if run.choices is None:
            return _plain(run, start)
        return run.choices.ranks[start:].astype(np.float64)

    def scale(self, run: RunModel) -> TintScale:
        return self._SCALE

    def words(self, run: RunModel, token: int) -> str:
        if run.choices is None:
            return ""
        probability = min(math.exp(float(run.choices.log_probabilities[token])), 1.0)
        return f"Rank: {run.choices.ranks[token]:,}, probability {probability:.3g}"


class Divergence(Tint):
    """How far a side's probabilities are from those of side A, where both read the same."""

    name, title, unit = "kl", "&KL to side A", "nats"
    meaning = (
        "KL(A || side) of the probabilities of a token, in nats: 0 where the side says what side A "
        "says. Of answers it is known up to the first token that is not A's; after that the sides "
        "have not read the same. Equal steps of colour are equal ratios."
    )
    _SCALE = QuietScale(0.001, 1.0, (0.001, 0.01, 0.1, 1), is_log=True)

    def is_known(self, run: RunModel) -> bool:
        return run.kl is not None

    def values(self, run: RunModel, start: int = 0) -> np.ndarray:
        values = _plain(run, start)
        if run.kl is not None:
            known = run.kl[start : run.token_count]
            values[: len(known)] = known
        return values

    def scale(self, run: RunModel) -> TintScale:
        return self._SCALE

    def words(self, run: RunModel, token: int) -> str:
        if run.kl is None:
            return ""
        if token >= len(run.kl):
            return _behind_words(len(run.kl))
        # What is rounded in float32 may be a little below 0.
        return f"KL to side A: {max(float(run.kl[token]), 0.0):.4f} nats"


EXPERTS, KL = Experts(), Divergence()
TINTS: tuple[Tint, ...] = (EXPERTS, Surprise(), Rank(), KL)


def _behind_words(tokens: int) -> str:
    """Why there is no KL of a token after the first `tokens`."""
    if not tokens:
        return "No KL to side A: it has read another prompt."
    return f"No KL to side A after token {tokens - 1}: the sides have not read the same there."


def _plain(run: RunModel, start: int) -> np.ndarray:
    return np.full(max(run.token_count - start, 0), np.nan)
