"""How long a run waits that a person asks for while an experiment has the model.

    python -m benchmarks.interactive_wait embedded --out benchmarks/results/interactive_wait.json

An evaluation with controls runs in the service. At random moments a comparison is asked for; the
wait is the time until its prompt is accepted. The experiment gives way between two passes of the
model, so beside it stands how long its passes take. At the end its numbers are compared with those
of the same evaluation that nobody has interrupted: they are equal, or this exits with 1.
"""

from __future__ import annotations

import argparse
import math
import queue
import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.summary import publish, spread
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.execution.service import Service
from bh_studio.engine.experiments.environment import describe_environment
from bh_studio.engine.protocol.events import (
    Failed,
    Finished,
    LoadRefused,
    ModelLoaded,
    Progress,
    Report,
)
from bh_studio.engine.protocol.experiments import Comparison, Evaluation
from bh_studio.engine.protocol.requests import Body, LoadModel, Request
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.evaluation import EvaluationResult
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters

# Everything here has its own clock: a report is stamped when it is told.
Stamped = tuple[float, Report]
E = TypeVar("E")
# The first ones are slow: they are everyone's first.
_FIRST_PASSES = 5


class Desk:
    """A service that works in a thread, and its reports with the times they came at."""

    def __init__(self) -> None:
        self.reports: queue.SimpleQueue[Stamped] = queue.SimpleQueue()
        self.service = Service(lambda report: self.reports.put((time.perf_counter(), report)))
        self._thread = threading.Thread(target=self.service.work)
        self._thread.start()
        self._jobs = 0

    def ask(self, body: Body) -> int:
        """Ask for `body`; the number of the job."""
        self._jobs += 1
        self.service.submit(Request(self._jobs, body))
        return self._jobs

    def next(self, due: float = math.inf) -> Stamped | None:
        """The next report; None if it is `due` before. Ends the program if a job has failed."""
        try:
            left = None if due == math.inf else max(0.0, due - time.perf_counter())
            at, report = self.reports.get(timeout=left)
        except queue.Empty:
            return None
        if isinstance(report.event, Failed | LoadRefused):
            self.close()
            raise SystemExit(report.event.message)
        return at, report

    def wait_for(self, kind: type[E]) -> E:
        """The next event of that kind."""
        while True:
            stamped = self.next()
            if stamped is not None and isinstance(stamped[1].event, kind):
                return stamped[1].event

    def close(self) -> None:
        """End the service."""
        self.service.close()
        self._thread.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--windows", type=int, default=40, help="to evaluate, of 256 tokens")
    parser.add_argument("--batch", type=int, default=4, help="windows of one pass")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    desk = Desk()
    try:
        result = _measured(desk, arguments)
    finally:
        desk.close()
    publish(result, arguments.out)
    return 0 if result["numbers_are_equal"] else 1


def _measured(desk: Desk, arguments: argparse.Namespace) -> dict[str, Any]:
    desk.ask(LoadModel(arguments.model, arguments.device))
    event = desk.wait_for(ModelLoaded)
    definition = _evaluation(arguments.windows, arguments.batch)
    waits, passes, interrupted = _interrupted(desk, definition)
    alone = _alone(desk, definition)
    return {
        "model": event.model.name,
        "device": event.model.device,
        "dtype": event.model.dtype,
        "runs": len(waits),
        "wait_seconds": spread(waits),
        "pass_seconds": spread(passes),
        "longest_wait / longest_pass": round(max(waits) / max(passes), 3),
        "numbers_are_equal": _same(interrupted, alone),
        "environment": describe_environment(),
    }


def _interrupted(
    desk: Desk, definition: Evaluation
) -> tuple[list[float], list[float], EvaluationResult]:
    """The waits, the passes that were not interrupted, and what the evaluation came to."""
    moments = random.Random(0)
    waits: list[float] = []
    passes: list[float] = []
    evaluation, run, is_accepted, asked_at, last = desk.ask(definition), 0, False, 0.0, 0.0
    due = math.inf
    while True:
        stamped = desk.next(due)
        if stamped is None:
            asked_at, is_accepted, due = time.perf_counter(), False, math.inf
            run = desk.ask(_comparison(len(waits)))
            continue
        at, (job, event) = stamped
        if job == evaluation and isinstance(event, Finished):
            return waits, passes, event.document
        if job == evaluation and isinstance(event, Progress):
            if last and not run:
                passes.append(at - last)
            last = at
            if not run and due == math.inf and len(passes) >= _FIRST_PASSES:
                # Anywhere within the next two passes or so.
                due = at + moments.uniform(0, 2 * statistics.median(passes))
        if job == run and isinstance(event, Progress) and not is_accepted:
            is_accepted = True
            waits.append(at - asked_at)
        if job == run and isinstance(event, Finished):
            run, last = 0, 0.0


def _alone(desk: Desk, definition: Evaluation) -> EvaluationResult:
    desk.ask(definition)
    result: EvaluationResult = desk.wait_for(Finished).document
    return result


def _evaluation(windows: int, batch: int) -> Evaluation:
    text = Text("calibration.txt", calibration_text())
    return Evaluation(
        texts=(text,), rules=(RuleParameters(level=0.01), RuleParameters(level=0.05)),
        with_controls=True, window=256, stride=128, tokens=windows * 128, batch=batch,
    )  # fmt: skip


def _comparison(seed: int) -> Comparison:
    return Comparison(
        prompt="Once upon a time",
        sides=(None, RuleParameters()),
        generation=GenerationParameters(4, seed=seed),
    )


def _same(one: EvaluationResult, other: EvaluationResult) -> bool:
    return all(
        np.array_equal(left.quality, right.quality) and np.array_equal(left.counts, right.counts)
        for left, right in zip(one.sums, other.sums, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
