"""How a side of a run differs from the first, in words. Measured values only; knows no widget."""

from __future__ import annotations

from bh_studio.ui.state.reading.costs import cost_meanings, cost_parts
from bh_studio.ui.state.reading.side_numbers import limit_words, percent
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.words import Part


def difference_parts(sides: RunSides, side: int) -> list[Part]:
    """What `side` did against the first; nothing before both have tokens."""
    first, run = sides.runs[0], sides.runs[side]
    if not run.token_count or not first.token_count:
        return []
    experts, limits = _experts(first, run), Part(limit_words(run), "", 1)
    if first.reading is not None and run.reading is not None:
        costs = cost_parts(first.reading, run.reading)
        parts = [*costs[:2], experts, *costs[2:], limits]
    else:
        agreement = Part(_agreement(sides, side), "", 6)
        parts = [experts, limits, agreement, Part(_speed(first, run), "", 0)]
    return [part for part in parts if part.words]


def difference_meaning(sides: RunSides, side: int) -> str:
    """What each part of difference_parts says, a line each."""
    first, run = sides.runs[0].name, sides.runs[side].name
    used = "would have used" if sides.runs[side].is_counted_only else "used"
    whole = "of the text" if sides.is_same_text else "of its answer"
    lines = [
        f"Experts: mean that {run} {used}, over all tokens {whole} and all layers, ± one "
        f"standard deviation, and by how much it differs from the mean of {first}.",
        "Limits: share of (token, layer) pairs in which the rule chose fewer experts than "
        "min_k, or more than max_k, so that the limit decided.",
    ]
    if sides.is_same_text:
        return "\n".join((*cost_meanings(first, run), *lines))
    lines += [
        f"Token: the first one, counted from 0, that is not that of {first}.",
        f"Speed: tokens per second over those of {first}, each of its own computing time.",
    ]
    return "\n".join(lines)


def _experts(first: RunModel, run: RunModel) -> Part:
    mean, std, reference = run.statistics.mean, run.statistics.std, first.statistics.mean
    if mean is None or std is None or not reference:
        return Part("", "", 7)
    change = mean / reference - 1
    if abs(change) < 5e-4:
        against = "as many"
    else:
        against = f"{percent(abs(change))} {'fewer' if change < 0 else 'more'}"
    counted = "counted, " if run.is_counted_only else ""
    words = f"{mean:.2f} ± {std:.2f} experts, {counted}{against}"
    return Part(words, f"{counted}{against} experts", 7)


def _agreement(sides: RunSides, side: int) -> str:
    parting = sides.partings[side]
    if parting.token is not None:
        return f"another token at {parting.token}"
    return f"same for {parting.compared} tokens" if parting.compared else ""


def _speed(first: RunModel, run: RunModel) -> str:
    fast, slow = run.tokens_per_second, first.tokens_per_second
    # A side that only counts routes as the model does, so its speed says nothing about the rule.
    if not fast or not slow or run.is_counted_only:
        return ""
    # Of one short answer the second digit is the machine's other work.
    return f"{fast / slow:.1f} × the speed"
