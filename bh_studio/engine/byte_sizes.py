"""Numbers of bytes in words."""

from __future__ import annotations

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def format_bytes(count: float) -> str:
    """An amount with two or three digits, such as 13.8 GB; decimal units, as disks are sold."""
    for size, unit in _UNITS:
        if count >= size:
            amount = count / size
            return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:,.0f} {unit}"
    return f"{count:.0f} bytes"
