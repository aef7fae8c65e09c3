"""The numbers of one comparison: the table after `compare`, the line after a turn of `chat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bh_studio.cli.tables.answer_columns import decided
from bh_studio.cli.tables.proof import proof_lines
from bh_studio.cli.tables.sides import analyze_notes, drift_lines, layer_lines, title_lines
from bh_studio.cli.tables.table import aligned, number, ratio, whole
from bh_studio.engine.records.session import Session, SideRecord
from bh_studio.engine.records.terms import FinishReason
from bh_studio.engine.rules.sides import side_letter

_REASONS = {
    FinishReason.END_OF_TEXT: "end of text",
    FinishReason.MAX_NEW_TOKENS: "token limit",
    FinishReason.CONTEXT_LENGTH: "context full",
    FinishReason.STOPPED: "stopped",
    FinishReason.BROKEN_OFF: "broken off",
}


def summary(session: Session) -> str:
    """What the sides used and where they part, as lines of text."""
    sides, records = session.sides, session.records
    letters = [side_letter(side) for side in range(len(sides))]
    answers = [_answer(record) for record in records]
    rows = [
        ("", *letters),
        ("tokens", *(str(len(r.token_ids)) for r in records)),
        ("tokens per second", *(number(r.tokens_per_second, 1) for r in records)),
        ("seconds to first token", *(number(r.time_to_first_token_s, 3) for r in records)),
        ("mean experts", *(number(answer["mean"], 2) for answer in answers)),
        ("std of experts", *(number(answer["std"], 2) for answer in answers)),
        ("decided by min_k", *map(decided, sides, (a["share_clamped_min"] for a in answers))),
        ("decided by max_k", *map(decided, sides, (a["share_clamped_max"] for a in answers))),
        ("ended by", *(_REASONS[r.finish_reason] for r in records)),
    ]
    if len(sides) > 1:
        rows.insert(3, ("speed against A", "-", *map(ratio, session.speed_ratios[1:])))
    lines = ["", *title_lines(sides, session.model.top_k), "", *aligned(rows, left=1)]
    lines += layer_lines(sides, [answer["per_layer_mean"] for answer in answers])
    lines += analyze_notes(sides)
    lines += [
        f"{letter} is the same as A, token for token, as far as both go."
        if difference is None
        else f"{letter} first differs from A at token {difference}, counted from 0."
        for letter, difference in zip(letters[1:], session.first_differences[1:], strict=True)
    ]
    lines += drift_lines(sides, [record.drift for record in records])
    if session.proof is not None:
        lines += ["", *proof_lines(session.proof)]
    return "\n".join(lines)


def turn_line(session: Session) -> str:
    """What the sides used, in one line."""
    records, differences = session.records, session.first_differences[1:]
    parts = [
        f"{_listed([str(len(r.token_ids)) for r in records])} tokens",
        f"{_listed([number(_answer(r)['mean'], 2) for r in records])} mean experts",
        f"{_listed([number(r.tokens_per_second, 1) for r in records])} tok/s",
        _listed(list(dict.fromkeys(_REASONS[r.finish_reason] for r in records))),
    ]
    if differences:
        parts.insert(3, _difference(differences))
    return f"[{'; '.join(parts)}]"


def _difference(found: Sequence[int | None]) -> str:
    if all(token is None for token in found):
        return "no difference"
    said = _listed([whole(token) for token in found])
    return (
        f"first differences: tokens {said}" if len(found) > 1 else f"first difference: token {said}"
    )


def _listed(values: Sequence[str]) -> str:
    *former, last = values
    return f"{', '.join(former)} and {last}" if former else last


def _answer(record: SideRecord) -> dict[str, Any]:
    return record.statistics()["answer"]  # type: ignore[no-any-return]
