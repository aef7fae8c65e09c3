"""A folder that keeps the newest runs, whether a person saved them or not. Knows no window."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from pathlib import Path

from bh_studio.engine.records.session import SUFFIX

_log = logging.getLogger(__name__)

_MOST_KEPT = 100
_KEPT = re.compile(r"\d{4}-\d\d-\d\d \d\d-\d\d-\d\d-\d{3}" + re.escape(SUFFIX))


def new_kept_path(folder: Path) -> Path:
    """Where in `folder` a run is to be kept that has ended now: its name is the time."""
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H-%M-%S-%f")[:-3]
    return folder / f"{stamp}{SUFFIX}"


def remove_oldest(folder: Path) -> None:
    """Let only the newest kept runs stay in `folder`; files with other names are left alone."""
    try:
        names = sorted(path.name for path in folder.iterdir() if _KEPT.fullmatch(path.name))
        for name in names[:-_MOST_KEPT]:
            (folder / name).unlink(missing_ok=True)
            _log.info("Removed the autosaved run %s; the newest %d stay.", name, _MOST_KEPT)
    except OSError as error:
        _log.warning("Old autosaved runs could not be removed: %s", error)
