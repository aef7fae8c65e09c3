"""Memory, devices and number formats in words. Knows no widget."""

from __future__ import annotations

import math

from bh_studio.engine.byte_sizes import format_bytes
from bh_studio.engine.messages import MemoryNeed, ModelInspected

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def format_amounts(done: float, total: float) -> str:
    """A part and its whole in one unit, such as 3.1 of 13.8 GB."""
    size, unit = _unit(total)
    return f"{_digits(_down(done / size))} of {_digits(total / size)} {unit}"


def device_words(device: str) -> str:
    """A device of messages.MemoryNeed as it is called in a sentence."""
    if device == "cpu":
        return "the CPU"
    if device == "mps":
        return "the Apple GPU"
    kind, _, number = device.partition(":")
    return f"GPU {number or 0}" if kind == "cuda" else device


def need_sentence(need: MemoryNeed) -> str:
    """What a model takes on one device and what is free there, a sentence."""
    size, unit = _unit(need.total)
    parts = (
        f"{_digits(need.weights / size)} weights, "
        f"{_digits(need.cache / size)} cache for 2\u00a0×\u00a0{need.cache_tokens:,} tokens, "
        f"{_digits(need.headroom / size)} headroom"
    )
    where = device_words(need.device)
    if need.fits:
        total, free = need.total / size, f"{format_bytes(need.free)} free"
        return f"Needs {_digits(total)} {unit} on {where} ({parts}); {free}."
    # Rounded apart, for "needs 14.6 GB, 14.6 GB are free" would explain nothing.
    total, free_amount = _up(need.total / size), _down(need.free / size)
    return (
        f"Needs {_digits(total)} {unit} on {where} ({parts}), "
        f"but only {_digits(free_amount)} {unit} are free."
    )


def fits(answer: ModelInspected) -> bool:
    """Whether every device has the memory for its part."""
    return all(need.fits for need in answer.needs)


def needs_text(answer: ModelInspected) -> str:
    """The sentences of all devices; one says in front if it does not fit."""
    sentences = " ".join(need_sentence(need) for need in answer.needs)
    return sentences if fits(answer) else f"Does not fit. {sentences}"


def _unit(count: float) -> tuple[float, str]:
    for size, unit in _UNITS:
        if count >= size:
            return size, unit
    return 1.0, "bytes"


def _digits(number: float) -> str:
    """One decimal below 100, none above."""
    return f"{number:.1f}" if number < 99.95 else f"{number:,.0f}"


def _up(number: float) -> float:
    return math.ceil(round(number * 10, 6)) / 10


def _down(number: float) -> float:
    return math.floor(round(number * 10, 6)) / 10
