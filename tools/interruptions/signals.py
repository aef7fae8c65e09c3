"""A command that is asked to end at any moment from its first import on.

Ctrl+C must end it with code 130, or by the signal itself before the program has begun, and what
was there must be kept. A signal that came while there was work must not be lost.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from tools.interruptions.commands import content
from tools.interruptions.programs import Ended, Running
from tools.interruptions.trials import Faulty, Found, Ground

_INTERRUPTED = 130
_LONGEST = 60.0


def interrupted(ground: Ground, number: int) -> Found:
    """Ctrl+C."""
    return _signalled(ground, "interrupts", number, signal.SIGINT)


def terminated(ground: Ground, number: int) -> Found:
    """`kill`, and a terminal that is closed."""
    sign = (signal.SIGHUP, signal.SIGTERM)[number % 2]
    return _signalled(ground, "terminations", number, sign)


def _signalled(ground: Ground, scenario: str, number: int, sign: signal.Signals) -> Found:
    drawn, reference = ground.drawn(scenario, number), ground.references[0]
    has_out = drawn.random() < 0.5
    is_new = number % 3 == 0
    seconds = drawn.random() * (ground.starting if is_new else reference.seconds)
    subject = f"{sign.name} {'while libraries are imported' if is_new else 'from the load on'}"
    found = Found(scenario, number, subject, f"after {seconds:.2f} s, --out: {has_out}")
    command = reference.command
    place = ground.place(f"{scenario} {number}")
    arguments = command.line if has_out else [*command.arguments]
    running = Running(arguments, place, is_new=is_new)
    running.after(seconds)
    was_running, printed = running.held(), running.printed()
    running.send(sign)
    running.go_on()
    began = time.monotonic()
    ended = running.end(_LONGEST)
    try:
        found.outcome = _outcome(ended, printed, was_running, sign)
        if was_running:
            found.figures["seconds until the end"] = round(time.monotonic() - began, 2)
        if has_out and printed:
            _check_kept(content(place.work / command.out))
    except OSError:
        found.faults.append("Tokens were on the screen and there is no file.")
    except Faulty as fault:
        found.faults.append(str(fault))
    if found.faults:
        found.outcome = "fault"
    return found


def _outcome(ended: Ended, printed: str, was_running: bool, sign: signal.Signals) -> str:
    if ended.code is None:
        raise Faulty(f"It still ran a minute after {sign.name}.")
    if ended.code == 0:
        # What is printed last was printed before: nothing was left that could be stopped.
        if was_running and ended.said != printed:
            raise Faulty(f"It ran on to its end after {sign.name}, with exit code 0.")
        return "done before"
    if ended.code not in (-sign, _INTERRUPTED):
        raise Faulty(f"It ended with {ended.code}: {ended.complained[-300:]}")
    if "Traceback" in ended.complained:
        return "ended while Python itself began"
    return "ended by the signal" if ended.code == -sign else "ended with 130"


def _check_kept(session: Any) -> None:
    """Raise Faulty if no token is in what was saved."""
    if not any(side["token_ids"] for side in session[0]["sides"]):
        raise Faulty("Tokens were on the screen and none was saved.")
