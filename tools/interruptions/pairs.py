"""Two processes that write one file: the second is told who has it, and the result is right."""

from __future__ import annotations

import re

from tools.interruptions.commands import content
from tools.interruptions.programs import Ended, Running
from tools.interruptions.trials import Faulty, Found, Ground, check_sentence, strangers

_TOLD = re.compile(r"being written by another bh-studio( \(process (\d+), since \d\d:\d\d\))?")
_REFUSED = 2


def two_at_once(ground: Ground, number: int) -> Found:
    """The same command twice, the second at any moment of the first or right behind it."""
    drawn = ground.drawn("pairs", number)
    reference = ground.references[number % len(ground.references)]
    command = reference.command
    seconds = 0.0 if drawn.random() < 0.3 else drawn.random() * reference.seconds
    found = Found("pairs", number, command.name, f"the second after {seconds:.2f} s")
    place = ground.place_for(command, f"pairs {number}")
    processes = [Running(command.line, place, program=command.program, given=command.given)]
    processes[0].after(seconds)
    processes.append(Running(command.line, place, program=command.program, given=command.given))
    ended = [process.end() for process in processes]
    try:
        found.outcome = _outcome(processes, ended)
        if content(place.work / command.out) != reference.content:
            raise Faulty("The result is another than that of one process alone.")
        if beside := strangers(place.work, reference):
            raise Faulty(f"They left {', '.join(beside)}.")
    except Faulty as fault:
        found.outcome = "fault"
        found.faults.append(str(fault))
    return found


def _outcome(processes: list[Running], ended: list[Ended]) -> str:
    codes = [one.code for one in ended]
    if codes == [0, 0]:
        return "one after the other"
    if sorted(map(str, codes)) != ["0", str(_REFUSED)]:
        raise Faulty(f"They ended with {codes}: {ended[0].complained} {ended[1].complained}")
    refused = codes.index(_REFUSED)
    check_sentence(ended[refused])
    told = _TOLD.search(ended[refused].complained)
    if told is None:
        raise Faulty(f"Who has it was not told: {ended[refused].complained[-300:]}")
    if told[2] is None:
        return "told, but not which process"
    if int(told[2]) != processes[1 - refused].pid:
        raise Faulty(f"It was told that {told[2]} has it, which is another process.")
    return "told which process"
