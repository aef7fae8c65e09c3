"""The columns that describe one answer, in a table on the terminal and in a CSV."""

from __future__ import annotations

from bh_studio.cli.tables.table import number, share, whole
from bh_studio.engine.records.rows import Agreement, Answer
from bh_studio.engine.rules import Mode, RuleParameters

TITLES = ("tokens", "experts", "std", "min_k", "max_k", "same", "differs", "tok/s")
WIDTHS = (6, 7, 5, 6, 6, 6, 7, 7)
_LEGEND = """\
experts, std: over the tokens and layers of the rule's answer; min_k, max_k: how
often that limit decided, not the rule; same: positions with {}
token, in per cent of the longer answer; differs: the first without, counted
from 0."""
_ANALYZE = "Analyze: all answers used the model's own routing; {} are simulated."
CSV_ANSWER = (
    "tokens", "mean_experts", "std_experts", "share_clamped_min", "share_clamped_max",
    "tokens_per_second", "time_to_first_token_s", "finish_reason", "text",
)  # fmt: skip
CSV_AGREEMENT = ("agreement", "matching_tokens", "first_difference")
Cell = str | int | float | None


def decided(rule: RuleParameters | None, by_limit: float | None) -> str:
    """The share in which a limit decided for `rule`; a dash where there is none to decide, as for
    the model's own routing."""
    return share(by_limit if rule is not None and rule.entry.can_be_limited else None)


def cells(rule: RuleParameters | None, answer: Answer, agreement: Agreement | None) -> list[str]:
    """The cells under TITLES; rule, agreement: None for the baseline."""
    counts = answer.statistics
    return [
        str(counts.tokens),
        number(counts.mean, 2),
        number(counts.std, 2),
        decided(rule, counts.share_clamped_min),
        decided(rule, counts.share_clamped_max),
        share(agreement.share if agreement else None),
        whole(agreement.first_difference if agreement else None),
        number(answer.tokens_per_second, 1),
    ]


def legend(mode: Mode, whose: str = "BH's counts") -> str:
    """What the titles mean where answers are compared with the baseline's, and what `mode` makes of
    the numbers; whose: counts of which rules."""
    titles = titles_legend("the baseline's")
    return f"{titles}\n{_ANALYZE.format(whose)}" if mode is Mode.ANALYZE else titles


def titles_legend(reference: str) -> str:
    """What the titles mean. reference: whose answer the others are compared with."""
    return _LEGEND.format(reference)


def csv_answer(answer: Answer) -> list[Cell]:
    """The cells under CSV_ANSWER."""
    counts = answer.statistics
    return [
        counts.tokens,
        counts.mean,
        counts.std,
        counts.share_clamped_min,
        counts.share_clamped_max,
        answer.tokens_per_second,
        answer.time_to_first_token_s,
        answer.finish_reason.value,
        answer.text,
    ]


def csv_agreement(agreement: Agreement | None) -> list[Cell]:
    """The cells under CSV_AGREEMENT, empty for the baseline."""
    if agreement is None:
        return [None, None, None]
    return [agreement.share, agreement.matching, agreement.first_difference]
