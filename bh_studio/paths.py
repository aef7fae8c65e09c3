"""Where files live: the user's folders and the resources that ship with the program."""

from __future__ import annotations

from pathlib import Path

import platformdirs

_APP = "bh-studio"
_INSIDE = Path(__file__).resolve().parent / "resources"
# In a checkout that is not installed they lie beside the package.
_RESOURCES = _INSIDE if _INSIDE.is_dir() else _INSIDE.parents[1] / "resources"


def cache_dir() -> Path:
    """Folder for what can be computed again, such as nulls."""
    return Path(platformdirs.user_cache_dir(_APP, appauthor=False))


def config_dir() -> Path:
    """Folder for settings."""
    return Path(platformdirs.user_config_dir(_APP, appauthor=False))


def data_dir() -> Path:
    """Folder for the user's own work."""
    return Path(platformdirs.user_data_dir(_APP, appauthor=False))


def history_dir() -> Path:
    """Folder that keeps every run, saved by a person or not."""
    return data_dir() / "runs"


def autosave_dir() -> Path:
    """Folder in which earlier versions kept runs as session files."""
    return data_dir() / "autosave"


def log_dir() -> Path:
    """Folder for the program's log."""
    return Path(platformdirs.user_log_dir(_APP, appauthor=False))


def resource(name: str) -> Path:
    """Path of a shipped resource, such as "models/olmoe-nano".

    Raises FileNotFoundError if the installation lacks it.
    """
    path = _RESOURCES / name
    if not path.exists():
        raise FileNotFoundError(
            f"The installation is incomplete: {name} is missing. Install BH Studio again."
        )
    return path
