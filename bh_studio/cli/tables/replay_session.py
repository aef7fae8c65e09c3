"""Rules on the router logits of a session: as a table for the terminal and as a document."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bh_studio.cli.tables.answer_columns import decided
from bh_studio.cli.tables.sides import analyze_notes, title_lines
from bh_studio.cli.tables.table import aligned, number
from bh_studio.engine.records.decisions.side_replay import ReplayedSide
from bh_studio.engine.records.session import Session
from bh_studio.engine.rules import RuleParameters, format_rule
from bh_studio.engine.rules.sides import side_letter

SCHEMA_VERSION = 1
NOTE = (
    "Each layer is judged as it was recorded: unless the rule is the side's own, later layers "
    "would differ in a real run."
)
_TITLES = ("side", "answer", "prompt", "at min", "at max", "equal")
_LEGEND = (
    "answer, prompt: mean experts over positions and layers. at min, at max: share of the answer "
    "in which a limit, not the rule, decided. equal: counts, of all positions and layers, that "
    "are those the side recorded. *: the side's own rule."
)
_WIDTH = 100
_LONGEST_LABEL = 34


class Row(NamedTuple):
    """One rule on one side, by number; is_own: whether it is the side's."""

    side: int
    is_own: bool
    replayed: ReplayedSide


def table(name: str, session: Session, rows: Sequence[Row], with_layers: bool) -> str:
    """A line a rule and side, and how to read it. name: of the session's file or folder."""
    sides, model = session.sides, session.model
    lines = [
        f"{name}: {model.name}, {model.layers} layers of {model.experts} experts, top "
        f"{model.top_k}.",
        *title_lines(sides, model.top_k),
        "",
        *_numbers(rows),
    ]
    if with_layers:
        lines += ["", "Mean experts of each layer of the answer, from 0:", *_layer_lines(rows)]
    lines += ["", *textwrap.wrap(_LEGEND, _WIDTH)]
    if not all(row.is_own for row in rows):
        lines += textwrap.wrap(NOTE, _WIDTH)
    return "\n".join([*lines, *_remarks(session, rows)])


def document(name: str, session: Session, rows: Sequence[Row]) -> dict[str, Any]:
    """The same as plain values, ready for json.dump."""
    return {
        "schema_version": SCHEMA_VERSION,
        "note": NOTE,
        "session": {"file": name, "model": session.model.name},
        "rows": [
            {"side": side_letter(row.side), "is_own": row.is_own, **row.replayed.to_json()}
            for row in rows
        ],
    }


def rule_label(rule: RuleParameters | None) -> str:
    """A rule as it is written; the model's own routing in words."""
    return "the model's own" if rule is None else format_rule(rule)


def _numbers(rows: Sequence[Row]) -> Iterator[str]:
    """The titles and a line a row, below its rule where that is long."""
    labels = [_label(row) for row in rows]
    cells: list[Sequence[str]] = [("", *_TITLES)]
    for row, label in zip(rows, labels, strict=True):
        found = row.replayed
        answer = found.answer
        cells.append(
            (
                label if len(label) <= _LONGEST_LABEL else "",
                side_letter(row.side),
                number(answer.mean, 2),
                number(found.prompt.mean, 2),
                decided(found.rule, answer.share_clamped_min),
                decided(found.rule, answer.share_clamped_max),
                f"{found.equal_counts:,} of {found.counts.size:,}",
            )
        )
    titles, *lines = aligned(cells, left=1)
    yield titles
    for label, line in zip(labels, lines, strict=True):
        if len(label) > _LONGEST_LABEL:
            yield label
        yield line


def _label(row: Row) -> str:
    own, small = " *" if row.is_own else "", " !" if row.replayed.shortage else ""
    return f"{rule_label(row.replayed.rule)}{own}{small}"


def _layer_lines(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        yield f"{side_letter(row.side)}, {rule_label(row.replayed.rule)}"
        means = " ".join(f"{mean:5.2f}" for mean in row.replayed.answer.per_layer_mean)
        yield from textwrap.wrap(means, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _remarks(session: Session, rows: Sequence[Row]) -> Iterator[str]:
    """What has to be known of single rows, as lines."""
    used = {row.side for row in rows if row.is_own}
    own = [rule if side in used else None for side, rule in enumerate(session.sides)]
    yield from analyze_notes(own)
    for row in rows:
        if row.is_own and not row.replayed.is_equal:
            yield from textwrap.wrap(
                f"{side_letter(row.side)}: its own rule does not give all counts that it recorded. "
                f"They were decided on {session.model.device} where the session was made, and are "
                "replayed on the processor of this machine, where last digits may differ.",
                _WIDTH,
            )
    short = next((row for row in rows if row.replayed.shortage), None)
    if short is not None:
        sentence = (
            f"! The null is small for this level. {rule_label(short.replayed.rule)}: "
            f"{short.replayed.shortage}"
        )
        yield from textwrap.wrap(sentence, _WIDTH)
