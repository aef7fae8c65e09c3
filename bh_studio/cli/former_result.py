"""What an earlier run left in a result file or beside it, and whether it belongs to this run.

Knows no command, no model and no way to write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bh_studio.cli.terminal import EXIT_USAGE, CommandError

Row = dict[str, Any]
# Where and when rows were made does not make them others, nor what their prompts file is called.
_NO_SETTINGS = ("started at", "environment", "prompts file name")
# What results leave unsaid that were made before it could be otherwise.
_UNSAID = {"prompt format": "plain text"}
# Of the model, only what decides the rows; it may have moved to another folder.
_MODEL_SETTINGS = ("fingerprint", "null sha256", "dtype", "device", "expert path")


@dataclass(frozen=True, slots=True)
class FormerResult:
    """header: settings, model and more. rows: in the order made. is_finished: these are all."""

    header: Row
    rows: list[Row]
    is_finished: bool


def read_former(result: Path, journal: Path) -> FormerResult | None:
    """The rows in `journal` if there is one, else those of the finished `result`.

    Raises CommandError for a file that is no such result or is damaged.
    """
    try:
        if journal.exists():
            return _read_journal(journal)
        return _read_result(result) if result.exists() else None
    except OSError as error:
        raise CommandError(f"{result} could not be read: {error.strerror}.") from error
    except ValueError as error:
        raise CommandError(
            f"{error} Choose another --out, or replace it with --restart.", EXIT_USAGE
        ) from error


def check_settings(result: Path, then: Row, now: Row) -> None:
    """Raise CommandError, with what differs, unless two headers have the same settings.

    What `now` does not say is not compared.
    """
    former, new = _UNSAID | _settings(then), _settings(json.loads(json.dumps(now)))
    changes = [
        f"{name} ({_short(former.get(name))} then, {_short(value)} now)"
        for name, value in new.items()
        if former.get(name) != value
    ]
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise CommandError(
            f"{result} has rows made with other settings: {', '.join(changes[:3])}{more}. "
            "Choose another --out, or start over with --restart.",
            EXIT_USAGE,
        )


def _read_journal(path: Path) -> FormerResult:
    lines = path.read_bytes().split(b"\n")[:-1]  # the last one was cut short if it is not empty
    values = []
    for number, line in enumerate(lines, start=1):
        value = _parsed(line)
        if not isinstance(value, dict):
            raise ValueError(f"{path} is damaged in line {number}.")
        values.append(value)
    if not values:
        raise ValueError(f"{path} is empty.")
    return FormerResult(values[0], values[1:], is_finished=False)


def _read_result(path: Path) -> FormerResult:
    document = _parsed(path.read_bytes()) if path.suffix == ".json" else None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(rows, list):
        raise ValueError(
            f"{path} exists already and is no result that this command can go on with."
        )
    return FormerResult(document, [*rows, *document.get("skipped", [])], is_finished=True)


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _settings(header: Row) -> dict[str, Any]:
    """What makes the rows what they are, under names that a person understands."""
    settings = {}
    for name, value in _flat(header, ""):
        group, _, field = name.partition(" ")
        is_model_detail = group == "model" and field not in _MODEL_SETTINGS
        if not is_model_detail and not name.startswith(_NO_SETTINGS):
            settings[name] = value
    return settings


def _flat(value: object, name: str) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, item in value.items():
        # "parameters" says nothing that its members do not.
        yield from _flat(
            item, name if key == "parameters" else f"{name} {key}".strip().replace("_", " ")
        )


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else f"{text[:23]}…"
