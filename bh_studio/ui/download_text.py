"""A download in words. Knows no widget."""

from __future__ import annotations

from bh_studio.engine.byte_sizes import format_bytes
from bh_studio.ui.downloads import DownloadView, Phase
from bh_studio.ui.memory_text import format_amounts


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
