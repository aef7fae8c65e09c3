"""What is told of a download, as frozen values: by the child that fetches, and to who watches.

The child's lines hold the same values as the events that follow from them; what only its parent
knows has a default there. Knows neither Qt nor torch nor the hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bh_studio.engine.files.plain_json import JsonError, convert, decode, encode
from bh_studio.engine.hub.source import HubSource


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that the model needs. size: bytes. present: bytes of it that are here already."""

    name: str
    size: int
    present: int


@dataclass(frozen=True, slots=True)
class DownloadPlanned:
    """What will be fetched; comes once, before the first byte.

    commit: what the revision stands for now. cache: the folder that everything goes to. free: bytes
    free on its file system.
    """

    source: HubSource
    commit: str
    files: tuple[PlannedFile, ...]
    cache: Path
    free: int

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def present(self) -> int:
        """Bytes that need not be fetched."""
        return sum(file.present for file in self.files)

    @property
    def needed(self) -> int:
        """Bytes to fetch, which the disk must take."""
        return self.total - self.present

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what is to be fetched."""
        return self.needed <= self.free


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """Bytes that are here, at most about ten times a second.

    done, total: bytes of all files together. file: the one that is being fetched.
    bytes_per_second, seconds_left: by the last seconds; None while there is no telling. fetched:
    bytes that came since the start, those that came twice counted twice.
    """

    done: int
    total: int
    file: str
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class DownloadStalled:
    """No byte has come for `seconds`; the next DownloadProgress ends it.

    restart_seconds: after so many without a byte the connection is given up and made anew.
    """

    seconds: float
    restart_seconds: float


@dataclass(frozen=True, slots=True)
class DownloadRetrying:
    """The connection was lost; it is made anew in `seconds`, and what is here is kept.

    message: what happened, one sentence. attempt: counts from 1 up to `attempts`, and from 1 again
    when bytes have come in between.
    """

    message: str
    attempt: int
    attempts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """All bytes are here and are compared with the hub's hashes. done, total: bytes."""

    done: int
    total: int
    file: str


@dataclass(frozen=True, slots=True)
class FileDamaged:
    """A file was not what the hub says it is; it was removed and is fetched once more."""

    file: str


@dataclass(frozen=True, slots=True)
class DownloadFinished:
    """The model is complete and verified in `folder`. fetched: bytes that this download fetched."""

    source: HubSource
    commit: str
    folder: Path
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class DownloadStopped:
    """The download ended because it was asked to, or after the plan if only that was asked for.

    present: bytes of the model that are kept here; the same download again goes on from them.
    """

    source: HubSource
    present: int


@dataclass(frozen=True, slots=True)
class DownloadFailed:
    """The download ended with an error; what is here is kept.

    message: what went wrong, one sentence. advice: what to do about it, may be empty.
    details: for a report. is_temporary: whether trying again may help.
    """

    source: HubSource
    message: str
    advice: str
    details: str
    is_temporary: bool = False


# What the child tells; the others its parent finds out by itself.
Message = (
    DownloadPlanned
    | DownloadProgress
    | VerifyProgress
    | FileDamaged
    | DownloadFinished
    | DownloadFailed
)
DownloadEvent = Message | DownloadStalled | DownloadRetrying | DownloadStopped
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def to_line(message: Message) -> str:
    """`message` as one line of ASCII, without its end."""
    return encode([type(message).__name__, message]).decode()


def from_line(line: str) -> Message | None:
    """The message in `line`; None for what is none, such as a warning of a library."""
    try:
        name, fields = decode(tuple[str, dict[str, Any]], line)
        return convert(_KINDS[name], fields)
    except (JsonError, KeyError):
        return None
