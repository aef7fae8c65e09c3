"""An evaluation as a table for the terminal and as rows for a CSV file."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence

from bh_studio.cli.tables.answer_columns import decided
from bh_studio.cli.tables.table import aligned, interval
from bh_studio.engine.records.decisions.drift import have_fitted_null, size_words
from bh_studio.engine.records.estimates import Estimate
from bh_studio.engine.records.evaluation import Control, EvaluationResult, Scores
from bh_studio.engine.units import counted

_TITLES = (
    "experts",
    "perplexity",
    "change",
    "95 % interval",
    "KL x 1000",
    "agree",
    "min_k",
    "max_k",
)
# Percentile intervals of a handful of blocks leave out more than 5 % of the cases.
_FEW_WINDOWS = 20
_ESTIMATES = (
    "nats", "nats_increase", "kl", "agreement", "mean_experts", "share_empty", "share_raised",
    "share_lowered",
)  # fmt: skip


def table(evaluation: EvaluationResult) -> str:
    """A line a contender, and how to read it."""
    rows, found = [("", *_TITLES)], evaluation.scores()
    for contender, scores in zip(evaluation.contenders, found, strict=True):
        cells = (
            contender.label,
            f"{scores.mean_experts.value:.2f}",
            f"{scores.perplexity:.3f}",
            f"{scores.perplexity_change.value:+.2%}",
            interval(scores.perplexity_change, "+.2%"),
            f"{scores.kl.value * 1000:.2f}",
            f"{scores.agreement.value:.1%}",
            decided(contender.parameters, scores.share_raised.value),
            decided(contender.parameters, scores.share_lowered.value),
        )
        rows.append(cells)
    lines = [*aligned(rows, left=1), *_at_own_temperatures(evaluation, found)]
    lines += _against_controls(evaluation)
    return "\n".join([*lines, "", *_notes(evaluation), *_unlike_texts(evaluation)])


def csv_text(evaluation: EvaluationResult) -> str:
    """A row a contender, intervals in columns of their own."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = [f"{name}{end}" for name in _ESTIMATES for end in ("", "_low", "_high")]
    others = ["std_experts", "expert_rows", "perplexity"]
    if (found := evaluation.scores())[0].scaled_increase is not None:
        names += [f"scaled_increase{end}" for end in ("", "_low", "_high")]
        others.append("temperature")
    writer.writerow(["label", "control", *names, *others])
    for contender, scores in zip(evaluation.contenders, found, strict=True):
        # Empty where there is no interval.
        estimates = [
            value for name in _ESTIMATES for value in getattr(scores, name).to_dict().values()
        ]
        if scores.scaled_increase is not None:
            estimates += scores.scaled_increase.to_dict().values()
        values = [getattr(scores, name) for name in others]
        writer.writerow([contender.label, contender.control or "", *estimates, *values])
    return text.getvalue()


def _at_own_temperatures(evaluation: EvaluationResult, found: Sequence[Scores]) -> Iterator[str]:
    """What each contender costs once each has the temperature that suits it."""
    rows = [
        (
            contender.label,
            f"{scores.temperature:.2f}",
            f"{scores.scaled_perplexity_change.value:+.2%}",
            interval(scores.scaled_perplexity_change, "+.2%"),
        )
        for contender, scores in zip(evaluation.contenders, found, strict=True)
        if scores.temperature is not None and scores.scaled_perplexity_change is not None
    ]
    if rows:
        yield ""
        yield "With the vocabulary logits divided by the number that suits each best on the other"
        yield "windows, so that flatter predictions alone gain nothing:"
        yield from aligned([("", "divided by", "change", "95 % interval"), *rows], left=1)
    elif any(sums.scaled is not None for sums in evaluation.sums):
        yield ""
        yield "No temperatures: each is fitted on other windows, and there is but one."


def _against_controls(evaluation: EvaluationResult) -> Iterator[str]:
    """What each rule loses less than its controls, in per cent of perplexity, paired."""
    places = {(c.parameters, c.control): i for i, c in enumerate(evaluation.contenders)}
    lines = []
    for (parameters, control), place in places.items():
        if parameters is None or control is None:
            continue
        gap = evaluation.difference(places[parameters, None], place)
        label = evaluation.contenders[places[parameters, None]].label
        lines.append(f"  {label} against {control}: {gain(gap)}")
    if lines:
        yield ""
        yield "Difference in nats a token x 100, about per cent of perplexity, at the same mean:"
        yield from lines


def gain(gap: Estimate) -> str:
    """A difference in nats a token, times 100, and what it shows."""
    scaled = gap.scaled(100)
    if not gap.has_interval:
        return f"{scaled.value:+.2f}, from one window alone: no interval"
    verdict = "better" if gap.high < 0 else "worse" if gap.low > 0 else "no difference shown"
    return f"{scaled.value:+.2f} ({interval(scaled, '+.2f')}), {verdict}"


def _unlike_texts(evaluation: EvaluationResult) -> Iterator[str]:
    """The texts to which a null that a rule asks does not belong."""
    if not have_fitted_null([contender.parameters for contender in evaluation.contenders]):
        return
    unlike = [
        (name, drift)
        for (name, _, _), drift in zip(evaluation.texts, evaluation.drifts, strict=False)
        if drift is not None and drift.is_unlike
    ]
    if unlike:
        yield ""
        yield "Unlike the text the null was fitted on, by their first window, so that levels and"
        yield "p-values do not carry over. The scores that the router discards are there"
    for name, drift in unlike:
        yield from textwrap.wrap(
            f"{name}: {size_words(drift)}.", 98, initial_indent="  ", subsequent_indent="    "
        )


def _notes(evaluation: EvaluationResult) -> Iterator[str]:
    total = int(evaluation.tokens.sum())
    windows = len(evaluation.tokens)
    yield (
        f"{total:,} scored tokens in {counted(windows, 'window')} of {evaluation.window}, "
        f"stride {evaluation.stride}."
    )
    if windows > 1:
        yield "Intervals: paired bootstrap over windows."
    if windows < _FEW_WINDOWS:
        yield (
            "So few windows make intervals too narrow: use more text."
            if windows > 1
            else "One window says nothing of others, so there are no intervals: use more text."
        )
    yield "KL: of the baseline from the rule, nats a token. agree: same most probable token as the"
    yield "baseline. min_k, max_k: share of (token, layer) in which that limit, not the rule,"
    yield "decided."
    if any(c.control is Control.SHUFFLED for c in evaluation.contenders):
        yield "shuffled: the rule's counts dealt out at random; fixed: top-k at the rule's mean."
    if not evaluation.is_complete:
        yield "Not complete: it was stopped. Every line is for the same windows."
