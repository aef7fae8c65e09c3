"""What a terminal says of the sides of a comparison, whatever they have answered."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from bh_studio.cli.terminal.columns import shorten
from bh_studio.engine.records.decisions.drift import Drift, drift_words
from bh_studio.engine.rules import Mode, RuleName, format_rule, rule_title
from bh_studio.engine.rules.sides import Sides, side_letter

# A level a layer makes a long text.
_LONGEST = 72
_WIDTH = 100


def side_titles(sides: Sides, top_k: int) -> list[str]:
    """What each of `sides` is, with its letter; a single BH by its level alone.

    top_k: experts that the model's own routing keeps.
    """
    is_single = sum(rule is not None for rule in sides) == 1
    titles = []
    for side, rule in enumerate(sides):
        title = f"baseline (top {top_k})" if rule is None else format_rule(rule)
        if rule is not None and is_single and rule.rule is RuleName.BH:
            title = f"{rule_title(rule)} ({rule.level_text})"
        titles.append(f"{side_letter(side)}: {title}")
    return titles


def title_lines(sides: Sides, top_k: int) -> list[str]:
    """The titles, a line each, below which letters are enough."""
    return [shorten(title, _LONGEST) for title in side_titles(sides, top_k)]


def layer_lines(sides: Sides, means: Sequence[Sequence[float]]) -> list[str]:
    """The mean experts of each layer, of all sides that have a rule. means: (side, layer)."""
    lines = [
        f"{side_letter(side)} " + "  ".join(f"{mean:.1f}" for mean in means[side])
        for side, rule in enumerate(sides)
        if rule is not None
    ]
    return ["", "Mean experts of each layer (from 0):", *lines] if lines else []


def analyze_notes(sides: Sides) -> list[str]:
    """What has to be known of counts that changed nothing, as lines."""
    return [
        f"Analyze: {side_letter(side)} used the model's own routing; its counts are simulated."
        for side, rule in enumerate(sides)
        if rule is not None and rule.mode is Mode.ANALYZE
    ]


def drift_lines(sides: Sides, drifts: Sequence[Drift | None]) -> list[str]:
    """Where a text is unlike the null's, that and what it means, as lines; else none."""
    words = drift_words(sides, drifts)
    if not words.headline:
        return []
    # The name of the command stays whole, to be copied.
    return ["", *textwrap.wrap(" ".join(words), _WIDTH, break_on_hyphens=False)]
