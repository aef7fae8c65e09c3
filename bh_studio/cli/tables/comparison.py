"""The numbers of one comparison: the table after `compare`, the line after a turn of `chat`."""

from __future__ import annotations

from typing import Any

from bh_studio.cli.tables.answer_columns import decided, rule_column
from bh_studio.cli.tables.table import aligned, number
from bh_studio.engine.records.session import Session, SideRecord
from bh_studio.engine.records.terms import FinishReason
from bh_studio.engine.rules import Mode, RuleParameters

_REASONS = {
    FinishReason.END_OF_TEXT: "end of text",
    FinishReason.MAX_NEW_TOKENS: "token limit",
    FinishReason.CONTEXT_LENGTH: "context full",
    FinishReason.STOPPED: "stopped",
    FinishReason.BROKEN_OFF: "broken off",
}


def summary(session: Session) -> str:
    """What both sides used and where they part, as lines of text."""
    baseline, bh = session.records
    title = rule_column(session.rule)
    rows = (
        ("", "baseline", title),
        ("tokens", *(str(len(r.token_ids)) for r in (baseline, bh))),
        ("tokens per second", *(number(r.tokens_per_second, 1) for r in (baseline, bh))),
        ("seconds to first token", *(number(r.time_to_first_token_s, 3) for r in (baseline, bh))),
        ("mean experts", *(number(_answer(r)["mean"], 2) for r in (baseline, bh))),
        ("std of experts", *(number(_answer(r)["std"], 2) for r in (baseline, bh))),
        ("decided by min_k", "-", decided(session.rule, _answer(bh)["share_clamped_min"])),
        ("decided by max_k", "-", decided(session.rule, _answer(bh)["share_clamped_max"])),
        ("ended by", *(_REASONS[r.finish_reason] for r in (baseline, bh))),
    )
    lines = ["", *aligned(rows, left=1)]
    lines += ["", f"{title}, mean experts of each layer (from 0):"]
    lines.append("  " + "  ".join(f"{mean:.1f}" for mean in _answer(bh)["per_layer_mean"]))
    lines += analyze_note(session.rule)
    difference = session.first_difference
    lines.append(
        "The answers are the same, token for token, as far as both go."
        if difference is None
        else f"The answers first differ at token {difference}, counted from 0."
    )
    return "\n".join(lines)


def turn_line(session: Session) -> str:
    """What both sides used, in one line."""
    baseline, bh = session.records
    difference = session.first_difference
    means, speeds = (
        " and ".join(values)
        for values in (
            [number(_answer(r)["mean"], 2) for r in (baseline, bh)],
            [number(r.tokens_per_second, 1) for r in (baseline, bh)],
        )
    )
    parts = [
        f"{len(baseline.token_ids)} and {len(bh.token_ids)} tokens",
        f"{means} mean experts",
        f"{speeds} tok/s",
        "no difference" if difference is None else f"first difference: token {difference}",
        " and ".join(dict.fromkeys(_REASONS[r.finish_reason] for r in (baseline, bh))),
    ]
    return f"[{'; '.join(parts)}]"


def analyze_note(rule: RuleParameters) -> list[str]:
    """What has to be known of counts that changed nothing, as lines."""
    if rule.mode is not Mode.ANALYZE:
        return []
    return [
        f"Analyze: both answers used the model's own routing; {rule_column(rule)}'s counts are "
        "simulated."
    ]


def _answer(record: SideRecord) -> dict[str, Any]:
    return record.statistics()["answer"]  # type: ignore[no-any-return]
