"""Replayed rules as a table for the terminal and as rows for a CSV file. Knows no torch."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence

from bh_studio.cli.tables.answer_columns import decided
from bh_studio.cli.tables.table import aligned, number, share
from bh_studio.engine.records.replays import NOTE, ArenaRow, NullKind, ReplayResult
from bh_studio.engine.rules.text import format_rule

_TITLES = (
    "experts", "std", "mass", "fixed", "overlap", "empty", "at min", "at max", "front",
)  # fmt: skip
_LEGEND = """\
experts, std: over (token, layer). mass: probability that the selected experts hold, of what the
model's own top-k holds; fixed: what a fixed top-k of that mean would hold. overlap: shared experts
over experts in either of the two sets. empty: nothing selected; at min, at max: decided by a limit.
front: no other row holds as much with as few experts. "cut" holds the most by construction."""
_NULLS = {
    NullKind.NONE: "no null",
    NullKind.LEAVE_ONE_OUT: "the null of each token from all others",
    NullKind.OWN: "nulls from the same recording",
    NullKind.OTHER: "nulls from another recording",
}
_WIDTH = 100
_LONGEST_LABEL = 29


def table(result: ReplayResult, with_layers: bool) -> str:
    """A line a rule, and how to read it."""
    rows = result.rows
    lines = [*_wrapped(_title(result)), "", *_numbers(rows)]
    if with_layers:
        lines += ["", "Mean experts of each layer, from 0:", *_layer_lines(rows)]
    return "\n".join([*lines, "", _LEGEND, *_shortage_lines(rows), NOTE])


def _numbers(rows: Sequence[ArenaRow]) -> Iterator[str]:
    """The titles and a line a rule, below its text where that is long."""
    labels = [_label(row) for row in rows]
    cells = [("", *_TITLES)]
    for row, label in zip(rows, labels, strict=True):
        statistics = row.statistics
        cells.append(
            (
                label if len(label) <= _LONGEST_LABEL else "",
                number(statistics.mean, 2),
                number(statistics.std, 2),
                share(row.relative_mass),
                share(row.fixed_relative_mass),
                number(row.overlap, 2),
                share(row.share_empty),
                decided(row.rule, statistics.share_clamped_min),
                decided(row.rule, statistics.share_clamped_max),
                "*" if row.on_front else "",
            )
        )
    titles, *lines = aligned(cells, left=1)
    yield titles
    for label, numbers in zip(labels, lines, strict=True):
        if len(label) > _LONGEST_LABEL:
            yield label
        yield numbers


def csv_text(rows: Sequence[ArenaRow]) -> str:
    """A row a rule, the mean of each layer in a column of its own."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = [
        "rule", "mean", "std", "share_empty", "share_clamped_min", "share_clamped_max", "mass",
        "relative_mass", "fixed_relative_mass", "overlap", "on_front",
    ]  # fmt: skip
    layers = range(len(rows[0].statistics.per_layer_mean))
    writer.writerow([*names, *(f"mean_layer_{layer}" for layer in layers)])
    for row in rows:
        values = row.to_json()
        writer.writerow([*(values[name] for name in names), *row.statistics.per_layer_mean])
    return text.getvalue()


def _title(result: ReplayResult) -> str:
    skipped = f", the first {result.skipped} left out" if result.skipped else ""
    return (
        f"{result.file}: {result.tokens:,} tokens{skipped}, {result.layers} layers of "
        f"{result.experts} experts, top {result.top_k}; {_NULLS[result.null.kind]}."
    )


def _label(row: ArenaRow) -> str:
    return format_rule(row.rule) + (" !" if row.shortage else "")


def _layer_lines(rows: Sequence[ArenaRow]) -> Iterator[str]:
    for row in rows:
        yield format_rule(row.rule)
        means = " ".join(f"{mean:5.2f}" for mean in row.statistics.per_layer_mean)
        yield from textwrap.wrap(means, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _shortage_lines(rows: Sequence[ArenaRow]) -> list[str]:
    """What "!" means, with the first row it stands at for an example."""
    for row in rows:
        if row.shortage:
            sentence = (
                f"! The null is small for this level. {format_rule(row.rule)}: {row.shortage}"
            )
            return _wrapped(sentence)
    return []


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH)
