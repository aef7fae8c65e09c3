"""What the window remembers between starts. A JSON file; knows no widget and no engine.

Whatever is in the file, loading gives usable settings: a wrong key or value falls back to its
default with a line in the log.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from bh_studio import paths
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.files.plain_json import JsonError, convert, parsed

_log = logging.getLogger(__name__)

_FILE = "settings.json"
_MOST_RECENT = 10
_MOST_BYTES = 2**20
_MOST_PIXELS = 65535


@dataclass(frozen=True, slots=True)
class Settings:
    """Remembered values. rule, generation: parameters by name; the window checks their values.

    chat: whether a prompt to an instruct model is a message rather than plain text.
    geometry: size and place of the window as Qt writes them, in base 64. splitters: sizes by name.
    model_device, model_dtype: what the models dialog chose last. recent_models: folders and hub
    names, the newest first.
    """

    prompt: str = ""
    rule: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    chat: bool = True
    system_prompt: str = ""
    text_percent: int = 100
    settings_visible: bool = True
    geometry: str = ""
    splitters: dict[str, list[int]] = field(default_factory=dict)
    recent_sessions: tuple[str, ...] = ()
    session_folder: str = ""
    model_device: str = "auto"
    model_dtype: str = "auto"
    recent_models: tuple[str, ...] = ()

    def with_recent(self, path: Path) -> Settings:
        """The same settings with `path` as the most recent session."""
        text = str(path)
        others = (other for other in self.recent_sessions if other != text)
        return dataclasses.replace(self, recent_sessions=(text, *others)[:_MOST_RECENT])


def settings_path() -> Path:
    """Where the settings are kept."""
    return paths.config_dir() / _FILE


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings; defaults for whatever is missing or wrong. Never raises."""
    path = path or settings_path()
    try:
        with path.open("rb") as file:
            document = parsed(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return Settings()
    except (OSError, JsonError) as error:
        reason = str(error).rstrip(".")
        _log.warning("The settings in %s cannot be read (%s); using defaults.", path, reason)
        return Settings()
    if not isinstance(document, dict):
        _log.warning("The settings in %s are not an object; using defaults.", path)
        return Settings()
    types = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in types:
            _log.warning("Unknown setting %r ignored.", name)
            continue
        try:
            values[name] = _for_qt(name, convert(types[name], value, name))
        except JsonError as error:
            _log.warning("Setting %r has a wrong value; using its default. %s", name, error)
    return Settings(**values)


def save_settings(settings: Settings, path: Path | None = None) -> None:
    """Write the settings at once or not at all; a disk that refuses costs a line in the log."""
    path = path or settings_path()
    text = json.dumps(dataclasses.asdict(settings), ensure_ascii=True, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        _log.warning("The settings cannot be written to %s: %s", path, error)


def _for_qt(name: str, value: Any) -> Any:
    """`value`, if it is none that Qt would stumble over. Raises JsonError."""
    if name == "geometry" and not value.isascii():
        raise JsonError("geometry is not base 64.")
    if name == "splitters":
        for sizes in value.values():
            if not all(0 <= size <= _MOST_PIXELS for size in sizes):
                raise JsonError(f"splitters holds sizes that are not 0 to {_MOST_PIXELS}.")
    return value
