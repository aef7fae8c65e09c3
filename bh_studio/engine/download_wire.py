"""What the child that fetches tells its parent: one line of JSON a message."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Planned:
    """What will be fetched. files: (name, bytes, bytes that are here) each."""

    commit: str
    files: tuple[tuple[str, int, int], ...]
    cache: str
    free: int


@dataclass(frozen=True, slots=True)
class Fetching:
    """done: bytes here of all files. fetched: bytes that came since the child started."""

    done: int
    total: int
    file: str
    fetched: int


@dataclass(frozen=True, slots=True)
class Verifying:
    """done, total: bytes that were compared with the hub's hashes."""

    done: int
    total: int
    file: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """`file` was removed and is fetched again."""

    file: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The last message, if the model is complete in `folder`."""

    commit: str
    folder: str


@dataclass(frozen=True, slots=True)
class Problem:
    """The last message, if something went wrong. is_temporary: trying again may help."""

    message: str
    advice: str
    details: str
    is_temporary: bool


Message = Planned | Fetching | Verifying | Damaged | Complete | Problem
_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Planned, Fetching, Verifying, Damaged, Complete, Problem)
}


def to_line(message: Message) -> str:
    """`message` as one line of ASCII, without its end."""
    return json.dumps([type(message).__name__, asdict(message)])


def from_line(line: str) -> Message | None:
    """The message in `line`; None for what is none, such as a warning of a library."""
    try:
        name, fields = json.loads(line)
        return _KINDS[name](**fields)
    except (ValueError, TypeError, KeyError):
        return None
