"""Events of a download from a hub, as frozen values. Knows neither Qt nor torch nor the hub."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

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
    bytes_per_second, seconds_left: by the last seconds; None while there is no telling.
    """

    done: int
    total: int
    file: str
    bytes_per_second: float | None
    seconds_left: float | None


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
    fetched: int


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
    details: for a report.
    """

    source: HubSource
    message: str
    advice: str
    details: str


DownloadEvent = (
    DownloadPlanned
    | DownloadProgress
    | DownloadStalled
    | DownloadRetrying
    | VerifyProgress
    | FileDamaged
    | DownloadFinished
    | DownloadStopped
    | DownloadFailed
)


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
