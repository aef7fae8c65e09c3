"""Memory, devices and number formats in words. Knows no widget."""

from __future__ import annotations

import math

from bh_studio.engine.byte_sizes import byte_unit, digits, format_bytes
from bh_studio.engine.messages import MemoryNeed, ModelInspected


def format_amounts(done: float, total: float) -> str:
    """A part and its whole in one unit, such as 3.1 of 13.8 GB."""
    size, unit = byte_unit(total)
    return f"{digits(_down(done / size))} of {digits(total / size)} {unit}"


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
    size, unit = byte_unit(need.total)
    parts = (
        f"{digits(need.weights / size)} weights, "
        f"{digits(need.cache / size)} cache for 2\u00a0×\u00a0{need.cache_tokens:,} tokens, "
        f"{digits(need.headroom / size)} headroom"
    )
    where = device_words(need.device)
    if need.fits:
        total, free = need.total / size, f"{format_bytes(need.free)} free"
        return f"Needs {digits(total)} {unit} on {where} ({parts}); {free}."
    # Rounded apart, for "needs 14.6 GB, 14.6 GB are free" would explain nothing.
    total, free_amount = _up(need.total / size), _down(need.free / size)
    return (
        f"Needs {digits(total)} {unit} on {where} ({parts}), "
        f"but only {digits(free_amount)} {unit} are free."
    )


def fits(answer: ModelInspected) -> bool:
    """Whether every device has the memory for its part."""
    return all(need.fits for need in answer.needs)


def needs_text(answer: ModelInspected) -> str:
    """The sentences of all devices; one says in front if it does not fit."""
    sentences = " ".join(need_sentence(need) for need in answer.needs)
    return sentences if fits(answer) else f"Does not fit. {sentences}"


def _up(number: float) -> float:
    return math.ceil(round(number * 10, 6)) / 10


def _down(number: float) -> float:
    return math.floor(round(number * 10, 6)) / 10
