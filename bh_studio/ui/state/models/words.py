"""Memory, devices and downloads in words. Knows no widget."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

from bh_studio.engine.protocol.events import ModelInspected
from bh_studio.engine.protocol.requests import DTYPES
from bh_studio.engine.records.terms import MemoryNeed
from bh_studio.engine.units import byte_unit, digits, format_bytes
from bh_studio.ui.state.models.downloads import DownloadView, Phase


def format_amounts(done: float, total: float) -> str:
    """A part and its whole in one unit, such as 3.1 of 13.8 GB."""
    size, unit = byte_unit(total)
    return f"{digits(_down(done / size))} of {digits(total / size)} {unit}"


def device_words(device: str) -> str:
    """A device of terms.MemoryNeed as it is called in a sentence."""
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


_GPU_NODE = re.compile(r"nvidia\d+")


def dtype_choices() -> dict[str, str]:
    """Words by number format, in the order of a menu."""
    return {
        name: "Auto" if size is None else f"{name}, {size} bytes a weight"
        for name, size in DTYPES.items()
    }


def device_choices() -> dict[str, str]:
    """Words by device, in the order of a menu; what is not there is the engine's to say."""
    choices = {"auto": "Auto", "cpu": "CPU"}
    if sys.platform == "darwin":
        return choices | {"mps": "Apple GPU"}
    for number in range(max(1, _gpu_nodes())):
        choices[f"cuda:{number}"] = f"GPU {number}"
    return choices | {"cuda:all": "All GPUs"}


def _gpu_nodes() -> int:
    """NVIDIA devices that the Linux kernel shows; 0 elsewhere and where it cannot be told."""
    try:
        return sum(_GPU_NODE.fullmatch(path.name) is not None for path in Path("/dev").iterdir())
    except OSError:
        return 0


def short_state(view: DownloadView) -> str:
    """A download in one or two words; empty once it has finished."""
    share = "" if view.share is None else f"{int(view.share * 100)} %"
    return {
        Phase.PLANNING: "Starting…",
        Phase.FETCHING: share or "Downloading",
        Phase.STALLED: "No data",
        Phase.RETRYING: "Reconnecting",
        Phase.VERIFYING: f"Verifying {share}".strip(),
        Phase.STOPPING: "Pausing…",
        Phase.PAUSED: "Paused",
        Phase.FAILED: "Failed",
        Phase.FINISHED: "",
    }[view.phase]


def progress_words(view: DownloadView) -> str:
    """Amount, speed and remaining time of a download that runs."""
    amount = format_amounts(view.done, view.total) if view.total else ""
    match view.phase:
        case Phase.PLANNING:
            return "Asking the hub what there is to fetch…"
        case Phase.FETCHING:
            speed = None if view.rate is None else f"{format_bytes(view.rate)}/s"
            left = (
                None if view.seconds_left is None else f"{format_duration(view.seconds_left)} left"
            )
            return "  ·  ".join(part for part in (amount, speed, left) if part)
        case Phase.VERIFYING:
            return f"Comparing with the hub's hashes: {amount}"
        case Phase.STOPPING:
            return f"Pausing…  {amount}".strip()
        case _:
            return amount


def trouble(view: DownloadView) -> str:
    """What keeps a download from moving, or what went wrong; empty if nothing does."""
    match view.phase:
        case Phase.STALLED:
            return (
                f"No data for {format_duration(view.waited)}. The connection is made anew after "
                f"{format_duration(view.retry_s)}; what is here is kept."
            )
        case Phase.RETRYING:
            when = f"in {format_duration(view.retry_s)}" if view.retry_s >= 1 else "now"
            return f"{view.message} Trying again {when}; what is here is kept."
        case Phase.FAILED:
            return f"{view.message} {view.advice}".strip()
        case _ if view.damaged and view.is_running:
            return f"{view.damaged} was damaged on the way and is fetched again."
        case _:
            return ""


def format_duration(seconds: float) -> str:
    """A time to wait, coarse as an estimate is: 45 s, 4 min, 2 h 10 min."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours >= 24:
        return f"{round(minutes / 60)} h"
    return f"{hours} h {rest} min" if rest else f"{hours} h"
