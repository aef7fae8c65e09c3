"""An evaluation as a table for the terminal and as rows for a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from bh_studio.cli.tables.table import line
from bh_studio.engine.records.estimates import Estimate
from bh_studio.engine.records.evaluation import Control, EvaluationResult

_HEADINGS = (
    ("experts", 8), ("ppl", 8), ("change", 8), ("95 % interval", 18), ("KL x 1000", 10),
    ("agree", 7), ("min_k", 7), ("max_k", 7),
)  # fmt: skip
# Percentile intervals of a handful of blocks leave out more than 5 % of the cases.
_FEW_WINDOWS = 20
_ESTIMATES = (
    "nats", "nats_increase", "kl", "agreement", "mean_experts", "share_empty", "share_raised",
    "share_lowered",
)  # fmt: skip


def table(evaluation: EvaluationResult) -> str:
    """A line a contender, and how to read it."""
    labels = [contender.label for contender in evaluation.contenders]
    first = max(map(len, labels)) + 1
    widths = [width for _, width in _HEADINGS]
    lines = [" " * first + line((heading for heading, _ in _HEADINGS), widths)]
    for label, scores in zip(labels, evaluation.scores(), strict=True):
        cells = (
            f"{scores.mean_experts.value:.2f}",
            f"{scores.perplexity:.3f}",
            f"{scores.perplexity_change.value:+.2%}",
            _interval(scores.perplexity_change),
            f"{scores.kl.value * 1000:.2f}",
            f"{scores.agreement.value:.1%}",
            f"{scores.share_raised.value:.1%}",
            f"{scores.share_lowered.value:.1%}",
        )
        lines.append(f"{label:<{first}}" + line(cells, widths))
    return "\n".join([*lines, *_against_controls(evaluation), "", *_notes(evaluation)])


def csv_text(evaluation: EvaluationResult) -> str:
    """A row a contender, intervals in columns of their own."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = [f"{name}{end}" for name in _ESTIMATES for end in ("", "_low", "_high")]
    writer.writerow(["label", "control", *names, "std_experts", "expert_rows", "perplexity"])
    for contender, scores in zip(evaluation.contenders, evaluation.scores(), strict=True):
        estimates = [value for name in _ESTIMATES for value in getattr(scores, name)]
        others = (scores.std_experts, scores.expert_rows, scores.perplexity)
        writer.writerow([contender.label, contender.control or "", *estimates, *others])
    return text.getvalue()


def _against_controls(evaluation: EvaluationResult) -> Iterator[str]:
    """What each rule loses less than its controls, in per cent of perplexity, paired."""
    places = {(c.parameters, c.control): i for i, c in enumerate(evaluation.contenders)}
    lines = []
    for (parameters, control), place in places.items():
        if parameters is None or control is None:
            continue
        gap = evaluation.difference(places[parameters, None], place)
        low, high = gap.low, gap.high
        verdict = "better" if high < 0 else "worse" if low > 0 else "no difference shown"
        lines.append(
            f"  {evaluation.contenders[places[parameters, None]].label} against {control}: "
            f"{gap.value * 100:+.2f} ({low * 100:+.2f} to {high * 100:+.2f}), {verdict}"
        )
    if lines:
        yield ""
        yield "Difference in nats a token x 100, about per cent of perplexity, at the same mean:"
        yield from lines


def _notes(evaluation: EvaluationResult) -> Iterator[str]:
    total = int(evaluation.tokens.sum())
    yield (
        f"{total:,} scored tokens in {len(evaluation.tokens)} windows of {evaluation.window}, "
        f"stride {evaluation.stride}."
    )
    yield (
        "Intervals: paired bootstrap over windows. KL: of the baseline from the rule, nats a token."
    )
    if len(evaluation.tokens) < _FEW_WINDOWS:
        yield "So few windows make intervals too narrow: use more text."
    yield "agree: same most probable token as the baseline. min_k, max_k: share of (token, layer)"
    yield "in which that limit, not the rule, decided."
    if any(c.control is Control.SHUFFLED for c in evaluation.contenders):
        yield "shuffled: the rule's counts dealt out at random; fixed: top-k at the rule's mean."
    if not evaluation.is_complete:
        yield "Not complete: it was stopped. Every line is for the same windows."


def _interval(estimate: Estimate) -> str:
    if estimate.low != estimate.low:  # nan: one window alone has no interval
        return "-"
    return f"{estimate.low:+.2%} to {estimate.high:+.2%}"
