"""The window, killed or asked to end while an answer streams and a person types.

What was typed must be kept, a second after it was; of the answer no more than two seconds may be
missing, and the next start must find it.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import bh_studio
from bh_studio.engine.records.runs.kept import take_cut_off
from bh_studio.engine.records.runs.lines import EVENTS, HEADER, RunEnd
from bh_studio.engine.records.runs.reader import read_end
from bh_studio.engine.records.session import Session
from tools.interruptions.programs import Place, Running
from tools.interruptions.trials import Faulty, Found, Ground

_PROGRAM = "tools.interruptions.watched_window"
_PROMPT = "The fox and the hare "
_ANSWER = ("--run", "--max-new-tokens", "250")
_MOST_TOKENS = 200
# A second until the change is written, and one for a machine with other work.
_TYPING_SECONDS = 2.0
_ANSWER_SECONDS = 2.0
_LONGEST_START = 120.0
_LONGEST = 60.0
_SIGNS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_LIMIT = 33


def stopped(ground: Ground, number: int) -> Found:
    """One window, from its start to the end of an answer."""
    drawn, sign = ground.drawn("windows", number), _SIGNS[number % len(_SIGNS)]
    place = ground.place(f"windows {number}")
    report = place.work / "report"
    found = Found("windows", number, sign.name)
    # One in five before there is anything to see.
    tokens = 0 if drawn.random() < 0.2 else drawn.randint(1, _MOST_TOKENS)
    seconds = drawn.random() * (3.0 if tokens == 0 else 1.0)
    found.what = f"{seconds:.2f} s after the start" if not tokens else (
        f"{seconds:.2f} s after token {tokens}"
    )  # fmt: skip
    running = Running(
        [str(report), "--types", "--prompt", _PROMPT, *_ANSWER], place, program=_PROGRAM
    )
    running.when(lambda: _tokens(report) >= tokens, _LONGEST_START)
    running.after(time.monotonic() - running.began + seconds)
    running.send(sign)
    killed_at = time.monotonic()
    ended = running.end(_LONGEST)
    shown = [line for line in _lines(report) if line["at"] <= killed_at]
    try:
        if sign is signal.SIGKILL:
            found.outcome = "killed"
        else:
            found.outcome = _outcome(ended.code, sign, ended.complained)
            found.figures["seconds until the end"] = round(time.monotonic() - killed_at, 2)
        if found.outcome != "before it began":
            _check(found, place, shown, killed_at, sign is not signal.SIGKILL)
    except Faulty as fault:
        found.faults.append(str(fault))
    if found.faults:
        found.outcome = "fault"
    return found


def two_windows(ground: Ground, number: int) -> Found:
    """Two windows with one settings file: one types, the other has set something."""
    drawn = ground.drawn("settings", number)
    found = Found("settings", number, "two windows")
    first = ground.place(f"settings {number}")
    report = first.work / "report"
    windows = [Running([str(report), "--types"], first, program=_PROGRAM)]
    windows[0].after(drawn.random() * 2.0)
    options = ["--max-new-tokens", str(_LIMIT)]
    windows.append(Running([str(first.work / "other"), *options], first, program=_PROGRAM))
    for path in (report, first.work / "other"):
        windows[0].when(lambda path=path: bool(_lines(path)), _LONGEST_START)  # type: ignore[misc]
    windows[0].after(time.monotonic() - windows[0].began + 3.0 * drawn.random())
    order = drawn.sample(windows, 2)
    for window in order:
        window.send(signal.SIGTERM)
        if drawn.random() < 0.5:
            window.end(_LONGEST)
    ended = [window.end(_LONGEST) for window in windows]
    found.what = "the typing one first" if order[0] is windows[0] else "the other first"
    found.outcome = "both kept"
    settings = _settings(first)
    codes = [one.code for one in ended]
    if codes != [128 + signal.SIGTERM] * 2:
        found.faults.append(f"They ended with {codes}: {[one.complained for one in ended]}")
    # What was typed between the last look and the end may be there too.
    elif not str(settings.get("prompt")).startswith(_lines(report)[-1]["prompt"]):
        found.faults.append("What one window had typed is not in the settings.")
    elif settings.get("generation", {}).get("max_new_tokens") != _LIMIT:
        found.faults.append("What the other window had set is not in the settings.")
    if found.faults:
        found.outcome = "fault"
    return found


def _outcome(code: int | None, sign: signal.Signals, complained: str) -> str:
    if code is None:
        raise Faulty(f"It still ran a minute after {sign.name}.")
    if code == 128 + sign and "Traceback" not in complained:
        return "ended in order"
    if code == -sign or (sign is signal.SIGINT and code == 128 + sign):
        return "before it began"
    raise Faulty(f"It ended with {code} after {sign.name}: {complained[-300:]}")


def _check(
    found: Found, place: Place, shown: list[dict[str, Any]], until: float, in_order: bool
) -> None:
    """Raise Faulty if more is missing on the disk than may be; `found` says how much was."""
    if not shown:
        return
    missing = _missing_typing(_settings(place).get("prompt"), shown, until)
    found.figures["seconds of typing that are missing"] = round(missing, 2)
    if missing > (0.0 if in_order else _TYPING_SECONDS):
        raise Faulty(f"{missing:.1f} s of what was typed are missing.")
    if any(shown[-1]["tokens"]):
        _check_answer(found, place, shown, until, in_order)


def _missing_typing(kept: str | None, shown: list[dict[str, Any]], until: float) -> float:
    """Seconds since what is not kept was typed. Raises Faulty for what nobody has typed."""
    prompts = [line["prompt"] for line in shown]
    # What was typed last may not have been reported any more.
    if kept is not None and kept.startswith(prompts[-1]):
        return 0.0
    if kept not in (None, *prompts):
        raise Faulty(f"The prompt that is kept was never on the screen: {kept!r}")
    first = prompts.index(kept) if kept is not None else -1
    later: list[float] = [line["at"] for line in shown[first + 1 :] if line["prompt"] != kept]
    return until - later[0]


def _check_answer(
    found: Found, place: Place, shown: list[dict[str, Any]], until: float, in_order: bool
) -> None:
    history = place.home / "bh-studio" / "runs"
    folders = list(history.glob("*/*/*"))
    if len(folders) != 1 or not (folders[0] / HEADER).exists():
        first = next(line["at"] for line in shown if any(line["tokens"]))
        found.figures["seconds of the answer that are missing"] = round(until - first, 2)
        if in_order or until - first > _ANSWER_SECONDS:
            raise Faulty(f"{until - first:.1f} s of an answer were shown and none is kept.")
        return
    folder = folders[0]
    session = _read(folder)
    counts = [len(record.token_ids) for record in session.records]
    later = [
        line["at"] for line in shown
        if any(there > kept for there, kept in zip(line["tokens"], counts, strict=True))
    ]  # fmt: skip
    missing = until - later[0] if later else 0.0
    found.figures["seconds of the answer that are missing"] = round(missing, 2)
    if missing > (0.0 if in_order else _ANSWER_SECONDS):
        raise Faulty(f"{missing:.1f} s of the answer are missing.")
    _check_offered(folder, history, counts, in_order)


def _check_offered(folder: Path, history: Path, counts: list[int], in_order: bool) -> None:
    """Raise Faulty unless the next start would find a run that was cut off, and no other."""
    end = read_end(folder)
    offered = [run.path for run in take_cut_off(history)]
    if end is not None:
        if end.how not in (RunEnd.STOPPED, RunEnd.COMPLETE) or offered:
            raise Faulty(f"A run that ended is said to be {end.how}, or offered: {offered}")
    elif in_order or offered != [folder]:
        raise Faulty(f"A run that was cut off is not offered: {offered}")
    again = [len(record.token_ids) for record in _read(folder).records]
    if again != counts:
        raise Faulty(f"Once it was offered it holds {again} tokens, not {counts}.")


def _read(folder: Path) -> Session:
    try:
        session = bh_studio.read(folder)
    except Exception as error:
        size = (folder / EVENTS).stat().st_size
        raise Faulty(f"The run cannot be read ({size} bytes): {error}") from error
    assert isinstance(session, Session)
    return session


def _settings(place: Place) -> dict[str, Any]:
    path = place.home / "bh-studio" / "settings.json"
    if not path.exists():
        return {}
    try:
        settings: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise Faulty("The settings are half written.") from error
    return settings


def _tokens(report: Path) -> int:
    lines = _lines(report)
    return min(lines[-1]["tokens"]) if lines else 0


def _lines(report: Path) -> list[dict[str, Any]]:
    if not report.exists():
        return []
    return [json.loads(line) for line in report.read_text().split("\n")[:-1]]
