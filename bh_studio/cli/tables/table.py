"""Tables on a terminal: cells in columns, and how numbers look in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bh_studio.cli.terminal.columns import display_width
from bh_studio.engine.records.estimates import Estimate

_GAP = "  "


def aligned(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Each of `rows` as a line, in columns as wide as what is in them.

    left: how many columns are set left, from the first; the others are set right.
    """
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    return [line(row, widths, left) for row in rows]


def line(cells: Iterable[str], widths: Iterable[int], left: int = 0) -> str:
    """One row where the others are not known yet; a cell wider than its column pushes the rest on.

    left: as in `aligned`.
    """
    set_in = []
    for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        room = " " * (width - display_width(cell))
        set_in.append(cell + room if place < left else room + cell)
    return _GAP.join(set_in).rstrip()


def number(value: float | None, digits: int) -> str:
    """`value` with `digits` decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """The share `value` in per cent; a dash where there is none."""
    return "-" if value is None else f"{value:.1%}"


def ratio(value: float | None) -> str:
    """How many times as much `value` says; a dash where there is none."""
    return "-" if value is None else f"{value:.2f}x"


def whole(value: int | None) -> str:
    """`value`; a dash where there is none."""
    return "-" if value is None else str(value)


def interval(estimate: Estimate, form: str) -> str:
    """From where to where `estimate` goes, each written as `form` says; a dash where it has no
    interval."""
    if not estimate.has_interval:
        return "-"
    return f"{estimate.low:{form}} to {estimate.high:{form}}"
