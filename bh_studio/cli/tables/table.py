"""Tables on a terminal: cells, and how numbers look in them."""

from __future__ import annotations

from collections.abc import Iterable


def line(cells: Iterable[str], widths: Iterable[int]) -> str:
    """Cells set right in columns of `widths`; a cell that is wider pushes the rest on."""
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def number(value: float | None, digits: int) -> str:
    """`value` with `digits` decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """The share `value` in per cent; a dash where there is none."""
    return "-" if value is None else f"{value:.1%}"


def whole(value: int | None) -> str:
    """`value`; a dash where there is none."""
    return "-" if value is None else str(value)
