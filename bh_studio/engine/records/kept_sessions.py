"""A folder that keeps every run, whether a person saved it or not. Knows no window."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from bh_studio.engine.records.session import SUFFIX


def new_kept_path(folder: Path) -> Path:
    """Where in `folder` a run is to be kept that has ended now: its name is the time."""
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H-%M-%S-%f")[:-3]
    return folder / f"{stamp}{SUFFIX}"
