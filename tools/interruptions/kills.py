"""A command that is stopped at a drawn moment, and the same command again.

It must come to the result of an undisturbed run, with no row lost that was finished and nothing
left beside.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
from pathlib import Path

from bh_studio.engine.records.journal import rows_path
from tools.interruptions.commands import Command, content, kept_rows
from tools.interruptions.moments import Moment, added_rows, changes, watch
from tools.interruptions.programs import ENDING, Ended, Place, Running
from tools.interruptions.trials import Faulty, Found, Ground, Reference, strangers, watched

# A moment may be anywhere in the code that follows a change of a file.
_MEAN_CALLS = 12
_HIDDEN = re.compile(r"\..*(\.lock|\.tmp)")
_TOLD = re.compile(r"^(\d+) of \d+ prompts$", re.MULTILINE)
_FORMER = b"What was here before.\n"
_INTERRUPTED = 130


def killed(ground: Ground, number: int) -> Found:
    """SIGKILL, as a machine that fails, or one that runs out of memory."""
    reference = ground.references[number % len(ground.references)]
    return _stopped(ground, "kills", number, reference, signal.SIGKILL)


def asked_to_end(ground: Ground, number: int) -> Found:
    """Ctrl+C, `kill` and a terminal that is closed, while there are files to write."""
    reference = ground.references[number // len(ENDING) % len(ground.references)]
    return _stopped(ground, "endings", number, reference, ENDING[number % len(ENDING)])


def _stopped(
    ground: Ground, scenario: str, number: int, reference: Reference, sign: signal.Signals
) -> Found:
    drawn, command = ground.drawn(scenario, number), reference.command
    found = Found(scenario, number, command.name)
    place = ground.place_for(command, f"{scenario} {number}")
    out = place.work / command.out
    has_former = not command.keeps_rows and drawn.random() < 0.5
    if has_former:
        out.write_bytes(_FORMER)
    try:
        ended = _disturbed(ground, found, place, reference, drawn, sign)
        found.outcome = "done before" if ended.code == 0 else "equal"
        _check_code(ended, sign)
        rows = _check_left(ended, out, reference, has_former)
        _check_again(place, reference, rows)
    except Faulty as fault:
        found.outcome = "fault"
        found.faults.append(str(fault))
    return found


def _disturbed(
    ground: Ground,
    found: Found,
    place: Place,
    reference: Reference,
    drawn: random.Random,
    sign: signal.Signals,
) -> Ended:
    """Run the command until the signal comes; `found` says when that was."""
    command = reference.command
    way = drawn.choices(("change", "time", "start"), (5, 3, 2))[0]
    if way == "change":
        moment = Moment(
            drawn.randint(1, len(reference.changes)), int(drawn.expovariate(1 / _MEAN_CALLS))
        )
        told = place.work.parent / "changes"
        running = Running(
            command.line, place, program=command.program, given=command.given,
            first=lambda: watch(watched(command, place), told, moment, sign),
        )  # fmt: skip
        ended = running.end()
        last = (changes(told)[moment.operation - 1 :] or ["none"])[0]
        found.what = f"{sign.name} {moment.calls} calls after change {moment.operation}, {last}"
        return ended
    is_new = way == "start"
    seconds = drawn.random() * (reference.seconds + ground.starting * is_new)
    running = Running(
        command.line, place, program=command.program, given=command.given, is_new=is_new
    )
    running.after(seconds)
    running.send(sign)
    found.what = f"{sign.name} after {seconds:.2f} s of a {'new process' if is_new else 'fork'}"
    return running.end()


def _check_code(ended: Ended, sign: signal.Signals) -> None:
    if ended.code == 0:
        return
    allowed = {-sign} if sign is signal.SIGKILL else {-sign, _INTERRUPTED}
    if ended.code not in allowed:
        raise Faulty(
            f"It ended with {ended.code} after {sign.name}. {ended.complained[-300:]}".strip()
        )


def _check_left(ended: Ended, out: Path, reference: Reference, has_former: bool) -> int | None:
    """Look at what is there once the program is gone; the rows that it kept."""
    command = reference.command
    for name in strangers(out.parent, reference, (command.out, rows_path(out).name)):
        if not _HIDDEN.fullmatch(name):
            raise Faulty(f"It left {name}.")
    is_whole = False
    if out.exists() and not (has_former and out.read_bytes() == _FORMER):
        # Whatever reading a damaged file ends in.
        with contextlib.suppress(Exception):
            found = content(out)
            is_whole = _may_be_part(ended, command) or found == reference.content
        if not is_whole:
            raise Faulty(f"{out.name} is half written: {out.stat().st_size} bytes.")
    elif has_former and not out.exists():
        raise Faulty(f"{out.name} was there before and is gone.")
    if not command.keeps_rows:
        was_asked = ended.code not in (0, -signal.SIGKILL)
        if was_asked and ended.said and not is_whole:
            raise Faulty(f"What it had printed is not in {out.name}.")
        return None
    try:
        rows = kept_rows(out)
    except (ValueError, LookupError) as error:
        raise Faulty(f"The rows are damaged: {error}") from error
    if rows is None:
        goes_on = is_whole and not command.is_made_anew
        return len(reference.rows or ()) if goes_on else 0
    told = [int(count) for count in _TOLD.findall(ended.complained)]
    if told and told[-1] > len(rows):
        raise Faulty(f"{told[-1]} rows were told and {len(rows)} are kept.")
    for key, row in rows.items():
        if reference.rows is None or row != reference.rows.get(key):
            raise Faulty(f"The row {key} is another than in an undisturbed run.")
    return len(rows)


def _may_be_part(ended: Ended, command: Command) -> bool:
    """Whether what is saved may be less than the whole answer: turns so far, or up to Ctrl+C."""
    was_stopped = ended.code == _INTERRUPTED and not command.keeps_rows
    return was_stopped or command.is_saved_often


def _check_again(place: Place, reference: Reference, rows: int | None) -> None:
    command = reference.command
    told = place.work.parent / "changes again"
    again = Running(
        command.line, place, program=command.program, given=command.given,
        first=lambda: watch(watched(command, place), told, None, 0),
    ).end()  # fmt: skip
    if again.code != 0:
        raise Faulty(f"The same command again ended with {again.code}: {again.complained[-400:]}")
    if content(place.work / command.out) != reference.content:
        raise Faulty("The same command again came to another result.")
    if beside := strangers(place.work, reference):
        raise Faulty(f"The same command again left {', '.join(beside)}.")
    if rows is not None:
        added, all_rows = added_rows(changes(told)), len(reference.rows or ())
        if rows + added != all_rows:
            raise Faulty(f"{rows} of {all_rows} rows were kept and {added} made again.")
