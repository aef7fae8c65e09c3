"""Amounts in words: bytes, and how many things."""

from __future__ import annotations

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def format_bytes(count: float) -> str:
    """An amount with two or three digits, such as 13.8 GB; decimal units, as disks are sold."""
    size, unit = byte_unit(count)
    return f"{count:.0f} {unit}" if size == 1.0 else f"{digits(count / size)} {unit}"


def byte_unit(count: float) -> tuple[float, str]:
    """The unit that suits an amount: how many bytes it is, and its name."""
    return next(((size, unit) for size, unit in _UNITS if count >= size), (1.0, "bytes"))


def digits(amount: float) -> str:
    """One decimal below 100, none above."""
    return f"{amount:.1f}" if amount < 99.95 else f"{amount:,.0f}"


def counted(count: int, noun: str) -> str:
    """`count` things, as in "1 row" and "2 rows"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
