"""All scenarios: how often each is tried, by several processes side by side, and the report."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tools.interruptions.commands import COMMANDS, Command
from tools.interruptions.disks import refused
from tools.interruptions.kills import asked_to_end, killed
from tools.interruptions.pairs import two_at_once
from tools.interruptions.programs import Running, load_libraries
from tools.interruptions.signals import interrupted, terminated
from tools.interruptions.trials import Found, Ground, prepare, reference_of
from tools.interruptions.windows import stopped, two_windows

_WHAT = "programs that were stopped, asked to end or refused a disk, and what was left"
Trial = Callable[[Ground, int], Found]


@dataclass(frozen=True, slots=True)
class Scenario:
    """what: is tried, and what is wanted. count: trials of a whole campaign. commands: it needs."""

    trial: Trial
    count: int
    what: str
    commands: tuple[Command, ...] = COMMANDS


SCENARIOS = {
    "kills": Scenario(
        killed, 168,
        "SIGKILL at a drawn moment of a command with --out, then the same command again: the "
        "result of an undisturbed run, no row lost or made twice, nothing half written or left",
    ),
    "endings": Scenario(
        asked_to_end, 42, "the same with SIGINT, SIGTERM and SIGHUP: what was printed is kept too"
    ),
    "interrupts": Scenario(
        interrupted, 300,
        "SIGINT at a drawn moment of compare, from the first import on: it ends with 130 or by the "
        "signal, what was on the screen is in --out, and no signal is lost",
        COMMANDS[:1],
    ),
    "terminations": Scenario(
        terminated, 40, "the same with SIGTERM and SIGHUP", COMMANDS[:1]
    ),
    "disks": Scenario(
        refused, 70,
        "--out on a disk that is full, read-only or gone: a sentence and an exit code, what was "
        "computed is printed, nothing half written, and where there is room again it is done",
    ),
    "pairs": Scenario(
        two_at_once, 28,
        "a command twice with one --out: the second is told which process has it, the result is "
        "that of one alone",
    ),
    "windows": Scenario(
        stopped, 60,
        "SIGKILL, SIGTERM, SIGHUP and SIGINT at a drawn moment of a window in which an answer "
        "streams while a person types: what was typed is kept, no more than two seconds of the "
        "answer are missing, and the next start offers it",
        COMMANDS[:1],
    ),
    "settings": Scenario(
        two_windows, 10,
        "two windows with one settings file: each leaves what the other changed",
        COMMANDS[:1],
    ),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this campaign."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=[*SCENARIOS])
    parser.add_argument("--count", type=int, help="trials of each scenario")
    parser.add_argument("--case", type=int, nargs="+", help="only these, shown and not written")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="scenarios that are there and not tried now stay")


def interruptions(arguments: argparse.Namespace) -> None:
    """Do what `arguments` say, print what is found, and write each scenario once it is tried."""
    # Imported late: it brings torch, which mutations weighs.
    from bh_studio.engine.experiments.environment import describe_environment

    # Asked to end, this too leaves neither processes nor folders behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scenarios = _former(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="interruptions-") as folder,
        Workers(arguments.jobs) as workers,
    ):
        needed = max((SCENARIOS[name].commands for name in arguments.only), key=len)
        ground = grounded(workers, Ground(Path(folder), arguments.seed), needed)
        for name in arguments.only:
            of = _scenario(name, workers, ground, arguments)
            print(name, json.dumps(of["outcomes"]), flush=True)
            scenarios[name] = {**of, "environment": describe_environment()}
            if arguments.out is not None and not arguments.case:
                document = {"what": _WHAT, "seed": arguments.seed, "scenarios": scenarios}
                arguments.out.write_text(json.dumps(document, indent=1) + "\n")


class Workers:
    """Processes that do trials, each with the libraries loaded for its forks."""

    def __init__(self, jobs: int) -> None:
        self._pool = ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), initializer=load_libraries
        )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def all(self, make: Callable[[Any], Any], of: Sequence[Any]) -> list[Any]:
        """What `make` makes of each, in their order."""
        return list(self._pool.map(make, of))


def grounded(workers: Workers, ground: Ground, commands: Sequence[Command]) -> Ground:
    """`ground` with its inputs, and with the undisturbed runs of `commands`."""
    workers.all(prepare, [ground])
    references = tuple(workers.all(partial(reference_of, ground), commands))
    (starting,) = workers.all(_starting, [replace(ground, references=references[:1])])
    return replace(ground, references=references, starting=starting)


def _scenario(
    name: str, workers: Workers, ground: Ground, arguments: argparse.Namespace
) -> dict[str, Any]:
    scenario, started = SCENARIOS[name], time.time()
    numbers = arguments.case or range(arguments.count or scenario.count)
    found = workers.all(partial(_tried, name, ground), numbers)
    if arguments.case:
        print(json.dumps([asdict(one) for one in found], indent=1), flush=True)
    return {
        "what": scenario.what,
        **summary(found),
        "took_s": round(time.time() - started),
        "finished_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


def summary(found: Sequence[Found]) -> dict[str, Any]:
    """What came of the trials of one scenario."""
    by_subject: dict[str, Counter[str]] = {}
    worst: dict[str, float] = {}
    for one in found:
        by_subject.setdefault(one.subject, Counter())[one.outcome] += 1
        for name, figure in one.figures.items():
            worst[name] = max(worst.get(name, figure), figure)
    return {
        "count": len(found),
        "outcomes": dict(Counter(one.outcome for one in found)),
        "by_subject": {name: dict(outcomes) for name, outcomes in sorted(by_subject.items())},
        "worst": worst,
        "faults": [asdict(one) for one in found if one.faults],
    }


def _tried(name: str, ground: Ground, number: int) -> Found:
    try:
        found = SCENARIOS[name].trial(ground, number)
    except Exception:  # noqa: BLE001 - one trial that cannot be made must not cost the others
        found = Found(name, number, "the campaign", outcome="fault")
        found.faults.append(traceback.format_exc()[-1500:])
    if found.faults:
        print(json.dumps(asdict(found)), flush=True)
    else:
        shutil.rmtree(ground.folder / f"{name} {number}", ignore_errors=True)
    return found


def _starting(ground: Ground) -> float:
    """Seconds that the first command takes longer in a new process than in a fork."""
    (reference,) = ground.references
    command = reference.command
    place = ground.place_for(command, "starting")
    running = Running(
        command.line, place, program=command.program, given=command.given, is_new=True
    )
    running.end()
    return max(0.0, time.monotonic() - running.began - reference.seconds)


def _former(arguments: argparse.Namespace) -> dict[str, Any]:
    """The scenarios in --out, if they are of the same seed."""
    if arguments.out is None or not arguments.out.exists():
        return {}
    document = json.loads(arguments.out.read_bytes())
    former: dict[str, Any] = document["scenarios"] if document["seed"] == arguments.seed else {}
    return former
