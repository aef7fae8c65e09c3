"""Time from starting the program to the first token of an answer, in the window and in a terminal.

    python -m benchmarks.first_token [--rounds N] [--out FILE]

Whole processes, the embedded model, the program's own defaults. Window and terminal are started in
two homes each: `warm` is one in which the program ran before, so that the model's null is in its
cache; `fresh` is new and empty each time, so that the null has to be computed. In both, files come
from the page cache (a whole round before the others is not counted) and no settings were saved.
Every round also measures what neither can do without, a Python that only imports torch; ratios
are taken to that, round by round.

The first token is there for a person to read (`token_shown`)
- in the window (`--prompt TEXT --run`) when Qt has handled the first repaint of an answer's text
  that has a token in it, and has given the frame to its platform: the offscreen one, unless
  QT_QPA_PLATFORM names another;
- in the terminal (`compare TEXT`) when the first row below the headings has come out of the pipe
  that is the program's standard output. To a pipe and to a terminal alike a row is printed when
  both answers have filled their half of it, which takes some twelve tokens of each at the 100
  columns used here.

On the way there: `window_painted`, after which the window makes its engine; the beginning of each
stage of loading, by its name; `model_ready`; and `first_token`, when the window's thread has the
token, or when `compare` prints the headings, which it does at the first token.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PySide6.QtCore import QEvent, QObject, QTimer, Slot
from PySide6.QtWidgets import QApplication

from bh_studio import __main__ as program
from bh_studio import app
from bh_studio.engine.protocol.events import (
    Finished,
    LoadProgress,
    ModelLoaded,
    Report,
    TokenGenerated,
)
from bh_studio.ui.compare.token_text import TokenText

PROMPT = "Once upon a time there was a little girl who"
FLOOR = "import_torch"
LIMIT_S = 600.0
# Seconds from the start of a process to what came about in it.
Marks = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write the JSON file; or be the window that is measured. The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measured", type=float, metavar="STARTED", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measured is not None:
        return watched_window(arguments.measured)
    environment: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as warm:
        # The first round fills the page cache and the warm home.
        _, *rounds = [one_round(warm, environment) for _ in range(arguments.rounds + 1)]
    result = summary(rounds, environment)
    print(json.dumps({key: result[key] for key in ("seconds", "ratio")}, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def one_round(warm: str, environment: dict[str, Any]) -> dict[str, Marks]:
    """Every way once; `environment` takes what the window says it ran on."""
    ((imported, _),) = lines_of(["-c", "import torch; print('imported', flush=True)"], warm)
    marks = {FLOOR: {"imported": imported}}
    for surface in ("window", "compare"):
        for state in ("warm", "fresh"):
            with tempfile.TemporaryDirectory() as empty:
                home = warm if state == "warm" else empty
                if surface == "window":
                    found, ran_on = window(home)
                    environment.update(ran_on)
                else:
                    found = compare(home)
            marks[f"{surface}_{state}"] = found
    print(json.dumps(marks), file=sys.stderr, flush=True)
    return marks


def window(home: str) -> tuple[Marks, dict[str, Any]]:
    """One window, which reads the clock itself; and what it ran on."""
    command = ["-m", "benchmarks.first_token", "--measured", repr(time.time())]
    ((_, line),) = lines_of(command, home)
    marks, environment = json.loads(line)
    return marks, environment


def compare(home: str) -> Marks:
    """One comparison in the terminal."""
    (titles, _), _, *rows = lines_of(["-m", "bh_studio", "compare", PROMPT], home)
    # An answer may begin with an empty line.
    shown = next(seconds for seconds, row in rows if row.replace("|", "").strip())
    return {"first_token": titles, "token_shown": shown}


def lines_of(command: list[str], home: str) -> list[tuple[float, str]]:
    """Run a Python to its own end; the lines it printed, and the seconds until each was here."""
    outside = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in outside}
    environment = {"QT_QPA_PLATFORM": "offscreen", **kept, "HOME": home, "COLUMNS": "100"}
    with tempfile.TemporaryFile("w+") as errors:
        started = time.time()
        with subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process:
            assert process.stdout is not None
            # Only for a process that hangs.
            watchdog = threading.Timer(LIMIT_S, process.kill)
            watchdog.daemon = True
            watchdog.start()
            lines = [(time.time() - started, line) for line in process.stdout]
        watchdog.cancel()
        if process.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{command} ended with {process.returncode}:\n{errors.read()}")
    return lines


def summary(rounds: list[dict[str, Marks]], environment: dict[str, Any]) -> dict[str, Any]:
    """The result as it is written."""
    # Not above, for the window that is measured has no use for it.
    from bh_studio.engine.records.benchmark.result import ratio, spread

    seconds = {
        way: {mark: [marks[way][mark] for marks in rounds] for mark in marks_of_way}
        for way, marks_of_way in rounds[0].items()
    }
    floor = seconds[FLOOR]["imported"]
    return {
        "what": "seconds from process start to the first token of an answer",
        "prompt": PROMPT,
        "seconds": {
            way: {mark: asdict(spread(values)) for mark, values in by_mark.items()}
            for way, by_mark in seconds.items()
        },
        "ratio": {
            f"{way} / {FLOOR}": asdict(ratio(by_mark["token_shown"], floor))
            for way, by_mark in seconds.items()
            if way != FLOOR
        },
        "rounds": rounds,
        "environment": environment,
    }


class Watcher(QObject):
    """Notes in the window's thread when things came about, in seconds since `started`."""

    def __init__(self, started: float) -> None:
        super().__init__()
        self.marks: Marks = {}
        self.environment: dict[str, Any] = {}
        self._started = started
        self._texts: list[TokenText] = []

    def note(self, mark: str) -> None:
        """Something has come about now, unless it had before."""
        self.marks.setdefault(mark, time.time() - self._started)

    @Slot(object)
    def take(self, report: Report) -> None:
        """Take one event of the engine; from the first token on wait for its repaint."""
        event = report.event
        if isinstance(event, LoadProgress):
            self.note(event.stage)
        elif isinstance(event, ModelLoaded):
            self.note("model_ready")
        # A token that is only a part of a character has no text yet.
        elif isinstance(event, TokenGenerated) and event.text and not self._texts:
            self.note("first_token")
            for top in QApplication.topLevelWidgets():
                self._texts += top.findChildren(TokenText)
            for text in self._texts:
                text.viewport().installEventFilter(self)
        elif isinstance(event, Finished):
            platform = QApplication.platformName()
            self.environment = {**event.document.environment, "qt_platform": platform}

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        # A frame without the token, asked for before it came, may still be on its way.
        if event.type() is QEvent.Type.Paint and any(text.token_count for text in self._texts):
            for text in self._texts:
                text.viewport().removeEventFilter(self)
            # Both answers are painted in one go, and timers are due after that.
            QTimer.singleShot(0, functools.partial(self.note, "token_shown"))
        return False


def watched_window(started: float) -> int:
    """The program as `bh-studio --prompt TEXT --run` starts it, but with its engine watched."""
    watcher = Watcher(started)

    def make_engine() -> app.EngineLike:
        watcher.note("window_painted")
        # As late as the program does it.
        from bh_studio.ui.engine_thread import Engine

        engine = Engine()
        engine.reported.connect(watcher.take)
        return engine

    app.run_window = functools.partial(app.run_window, make_engine=make_engine)
    code = program.main(["--prompt", PROMPT, "--run", "--quit"])
    print(json.dumps([watcher.marks, watcher.environment]))
    return code


if __name__ == "__main__":
    sys.exit(main())
