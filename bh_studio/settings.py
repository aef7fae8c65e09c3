"""What the window remembers between starts. A JSON file; knows no widget and no engine.

Whatever is in the file, loading gives usable settings: a wrong key or value falls back to its
default with a line in the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, get_type_hints

from bh_studio import paths
from bh_studio.engine.errors import InputError, as_sentence
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.files.bounded import read_bytes
from bh_studio.engine.files.lock import LockedError, locked
from bh_studio.engine.files.plain_json import JsonError, convert, encode, parsed

_log = logging.getLogger(__name__)

_FILE = "settings.json"
_MOST_RECENT = 10
# A prompt of a million characters, each as an escape.
_MOST_BYTES = 2**26
# Longer than another window takes to write its own.
_LOCK_SECONDS = 2.0
_MOST_PIXELS = 65535


@dataclass(frozen=True, slots=True)
class Settings:
    """Remembered values. sides: the rules as texts, "own" for the model's own routing. generation:
    parameters by name. The window checks these values. rule: of earlier versions, which had one.

    charts: of both slots the title of what is in it. charts_visible: None leaves it to the room
    there is. tint: what the background of tokens says. scrolls_together: whether the answers of
    all sides do. same_text: whether all sides read the prompt as it is, rather than write on from
    it.
    chat: whether a prompt to an instruct model is a message rather than plain text.
    geometry: size and place of the window as Qt writes them, in base 64. splitters: sizes by name.
    most_history_gb: what kept runs may take before the oldest are offered for removal.
    model_device, model_dtype: what the page of models chose last. recent_models: folders and hub
    names, the newest first.
    """

    prompt: str = ""
    rule: dict[str, Any] = field(default_factory=dict)
    sides: tuple[str, ...] = ()
    generation: dict[str, Any] = field(default_factory=dict)
    same_text: bool = False
    chat: bool = True
    system_prompt: str = ""
    text_percent: int = 100
    settings_visible: bool = True
    charts: tuple[str, ...] = ()
    charts_visible: bool | None = None
    tint: str = "experts"
    scrolls_together: bool = True
    geometry: str = ""
    splitters: dict[str, list[int]] = field(default_factory=dict)
    recent_sessions: tuple[str, ...] = ()
    session_folder: str = ""
    most_history_gb: float = 5.0
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


def load_settings(path: Path | None = None, tell: Callable[[str], None] | None = None) -> Settings:
    """Read the settings; defaults for whatever is missing or wrong. Never raises.

    A file that is no settings at all is kept aside under another name, for it may hold the only
    copy of a prompt; `tell` is told so in a sentence.
    """
    path = path or settings_path()
    try:
        document = _document(path)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        _log.warning("The settings in %s cannot be read (%s); using defaults.", path, error)
        return Settings()
    except ValueError as error:
        kept = _keep_aside(path)
        _log.warning("The settings cannot be read (%s); using defaults. %s", error, kept)
        if tell is not None:
            tell(f"The settings could not be read, so they begin anew. {kept}".rstrip())
        return Settings()
    return _settings_from(document)


def save_settings(
    settings: Settings, path: Path | None = None, former: Settings | None = None
) -> None:
    """Write the settings at once or not at all; a disk that refuses costs a line in the log.

    former: what whoever saves has read or saved before; what it has not changed since stays as
    another window has written it. Without it everything is written.
    """
    path = path or settings_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # Another window that hangs is not waited for for ever.
            with contextlib.suppress(LockedError):
                stack.enter_context(locked(path, _LOCK_SECONDS))
            if former is not None:
                settings = _merged(settings, former, path)
            content = encode(settings, indent=1)
            if len(content) > _MOST_BYTES:
                content = encode(dataclasses.replace(settings, prompt="", system_prompt=""), 1)
                _log.warning("The prompt is too long to be remembered.")
            write_atomically(path, content)
    except OSError as error:
        _log.warning("The settings cannot be written to %s: %s", path, error)


def _document(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises ValueError if there is none, OSError if it cannot be read."""
    try:
        document = parsed(read_bytes(path, _MOST_BYTES, "the settings"), str(path))
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise ValueError(str(error)) from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no object.")
    return document


def _settings_from(document: dict[str, Any]) -> Settings:
    types = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in types:
            _log.warning("Unknown setting %r ignored.", name)
            continue
        try:
            values[name] = _usable(name, convert(types[name], value, name))
        except JsonError as error:
            _log.warning("Setting %r has a wrong value; using its default. %s", name, error)
    return Settings(**values)


def _merged(settings: Settings, former: Settings, path: Path) -> Settings:
    """What is in `path`, with what has changed from `former` to `settings`."""
    try:
        there = _settings_from(_document(path))
    except (OSError, ValueError):
        return settings
    changed = {
        name: getattr(settings, name)
        for name in (entry.name for entry in dataclasses.fields(Settings))
        if getattr(settings, name) != getattr(former, name)
    }
    for name in ("recent_sessions", "recent_models"):
        if name in changed:
            # What this one has added, and what the other has; not what this one has dropped.
            gone = set(getattr(former, name)) - set(changed[name])
            others = [one for one in getattr(there, name) if one not in {*changed[name], *gone}]
            changed[name] = (*changed[name], *others)[:_MOST_RECENT]
    return dataclasses.replace(there, **changed)


def _keep_aside(path: Path) -> str:
    """Give what is at `path` another name; a sentence that says which, empty if that failed."""
    aside = path.with_name(
        f"{path.stem} unreadable {datetime.now().astimezone():%Y-%m-%d %H-%M-%S}.json"
    )
    try:
        path.rename(aside)
    except OSError as error:
        _log.warning("%s cannot be kept aside: %s", path, as_sentence(error))
        return ""
    return f"What was there is kept in {aside}."


def _usable(name: str, value: Any) -> Any:
    """`value`, if it is none that the window would stumble over. Raises JsonError."""
    if name == "most_history_gb" and not 0 <= value <= 1e6:
        raise JsonError("most_history_gb is not 0 to 1,000,000.")
    if name == "geometry" and not value.isascii():
        raise JsonError("geometry is not base 64.")
    if name == "splitters":
        for sizes in value.values():
            if not all(0 <= size <= _MOST_PIXELS for size in sizes):
                raise JsonError(f"splitters holds sizes that are not 0 to {_MOST_PIXELS}.")
    return value
