"""Trials: what one needs, what was found in it, and the undisturbed run it is compared with."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bh_studio.engine.records.journal import rows_path
from tools.interruptions.commands import PREPARING, Command, content, kept_rows, write_inputs
from tools.interruptions.moments import changes, watch
from tools.interruptions.programs import Ended, Place, Running

INPUTS = "inputs"


class Faulty(Exception):  # noqa: N818 - a finding, not a failure of the campaign
    """The program did what it must not; the message says what, in a sentence."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A run of `command` that nobody disturbed.

    folder: where it ran. names: what lay there afterwards. seconds: it took, forked. changes: of
    files, one after the other. rows: how many it kept, or none.
    """

    command: Command
    folder: Path
    names: frozenset[str]
    seconds: float
    changes: tuple[str, ...]
    said: str
    rows: dict[str, Any] | None

    @property
    def content(self) -> Any:
        """What its result says."""
        return content(self.folder / self.command.out)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all trials of a campaign share.

    folder: for everything. starting: seconds from the start of a process until its command begins.
    """

    folder: Path
    seed: int = 0
    starting: float = 0.0
    references: tuple[Reference, ...] = ()

    @property
    def inputs(self) -> Path:
        """What commands read."""
        return self.folder / INPUTS

    @property
    def cache(self) -> Path:
        """With the nulls of the models, once the preparation is done."""
        return self.folder / "cache"

    def place(self, name: str) -> Place:
        """A new folder with the inputs, and the shared cache."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.inputs, folder / "work")
        return Place(folder / "work", folder / "home", self.cache)

    def place_for(self, command: Command, name: str) -> Place:
        """The same, with the cache that `command` finds."""
        place = self.place(name)
        if command.has_first_use:
            return replace(place, cache=place.work.parent / "cache")
        return place

    def drawn(self, scenario: str, number: int) -> random.Random:
        """The same draws each time that this trial is made."""
        return random.Random(f"{self.seed} {scenario} {number}")


@dataclass(slots=True)
class Found:
    """What came of a trial.

    outcome: in a word or two. what: was done, in words. figures: seconds and the like, of which the
    largest are reported. faults: sentences; none is what is wanted.
    """

    scenario: str
    number: int
    subject: str
    what: str = ""
    outcome: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def prepare(ground: Ground) -> None:
    """Make the inputs, and what is fitted when a model is first used."""
    ground.inputs.mkdir(parents=True)
    write_inputs(ground.inputs)
    place = Place(ground.inputs, ground.folder / "preparing", ground.cache)
    for arguments in PREPARING:
        ended = Running([*arguments], place).end()
        if ended.code != 0:
            raise RuntimeError(ended.complained)


def reference_of(ground: Ground, command: Command) -> Reference:
    """Run `command` undisturbed. Raises RuntimeError if it fails."""
    place = ground.place_for(command, f"reference {command.name}")
    told = place.work.parent / "changes"
    running = Running(
        command.line, place, program=command.program, given=command.given,
        first=lambda: watch(watched(command, place), told, None, 0),
    )  # fmt: skip
    out, kept = place.work / command.out, place.home / command.out
    while running.poll() is None:
        running.when(lambda: False, 0.02)
        _keep(rows_path(out), rows_path(kept))
    ended = running.end()
    if ended.code != 0 or not out.exists():
        raise RuntimeError(f"{command.name}: {ended.complained}")
    return Reference(
        command, place.work, frozenset(_names(place.work)), _seconds(running),
        tuple(changes(told)), ended.said, kept_rows(kept),
    )  # fmt: skip


def watched(command: Command, place: Place) -> tuple[Path, ...]:
    """The folders in which `command` leaves something."""
    return (place.work, place.cache) if command.has_first_use else (place.work,)


def strangers(folder: Path, reference: Reference, among: Sequence[str] = ()) -> list[str]:
    """What lies in `folder` and has no place there; among: names that have one."""
    return sorted(set(_names(folder)) - reference.names - set(among))


def check_sentence(ended: Ended) -> None:
    """Raise Faulty if the program did not say in a sentence why it failed."""
    if ended.code is None:
        raise Faulty("It had not ended after minutes.")
    if "Traceback" in ended.complained:
        raise Faulty(f"It ended in Python's own words: {ended.complained[-600:]}")
    last = ended.complained.strip().rpartition("\n")[2]
    # The parser's own have no full stop.
    if not last.startswith("bh-studio") and not last.endswith("."):
        raise Faulty(f"Its last words are no sentence: {ended.complained[-200:]!r}")


def _keep(rows: Path, kept: Path) -> None:
    """Let `kept` be what `rows` is now, and what is written to it until it is removed."""
    with contextlib.suppress(OSError):
        if not kept.exists() or not kept.samefile(rows):
            kept.unlink(missing_ok=True)
            kept.hardlink_to(rows)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _seconds(running: Running) -> float:
    return time.monotonic() - running.began
