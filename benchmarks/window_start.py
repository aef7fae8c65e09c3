"""Time from starting the process to the first painted window, against a bare window.

    QT_QPA_PLATFORM=offscreen python benchmarks/window_start.py --out FILE

The bare window is a QMainWindow with a pyqtgraph plot in it. Both are started alternately, each in
a process of its own; the time ends when the window's first paint event has been handled. Both start
from bytecode, as every start of an installed program does: pip writes that of the libraries, the
start that is not counted writes ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NoReturn, cast

import numpy as np

STARTED = "BH_STUDIO_BENCHMARK_STARTED"


def main() -> None:
    """Measure, print, write the JSON file; or be one of the two processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measured", choices=["studio", "bare"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measured == "studio":
        studio_window()
    elif arguments.measured == "bare":
        bare_window()
    else:
        compare(arguments.rounds, arguments.out)


def compare(rounds: int, out: Path | None) -> None:
    """Start both in turns."""
    times: dict[str, list[float]] = {"studio": [], "bare": []}
    for number in range(rounds + 1):
        for kind in times:
            seconds = start(kind)
            if number:  # the first start fills the disk cache and writes the bytecode
                times[kind].append(seconds)
    ratios = np.array(times["studio"]) / np.array(times["bare"])
    result = {
        "what": "seconds from process start to first painted window",
        "rounds": rounds,
        "studio_s": quartiles(times["studio"]),
        "bare_s": quartiles(times["bare"]),
        "studio / bare": quartiles(ratios.tolist()),
    }
    # Imported last: it brings torch, which the starts above must not find in memory.
    from bh_studio.engine.experiments.environment import describe_environment

    result["environment"] = describe_environment()
    print(json.dumps({key: result[key] for key in list(result)[2:5]}, indent=1))
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")


def start(kind: str) -> float:
    """Seconds until the window of a new process was painted."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "XDG_CONFIG_HOME": home,
            "XDG_DATA_HOME": home,
            # Where this is set, each start would compile 200 modules anew.
            "PYTHONDONTWRITEBYTECODE": "",
            STARTED: repr(time.time()),
        }
        output = subprocess.run(
            [sys.executable, __file__, "--measured", kind],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return float(output.split()[-1])


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": float(middle), "q25": float(low), "q75": float(high)}


def report_and_exit() -> NoReturn:
    """Print the time since the parent started this process and end it."""
    print(time.time() - float(os.environ[STARTED]), flush=True)
    # Leaving Qt and the engine to their own ends would only cost the benchmark time.
    os._exit(0)


def bare_window() -> None:
    """PySide6 and pyqtgraph with nothing of ours."""
    import pyqtgraph
    from PySide6.QtCore import QEvent, QObject, QTimer
    from PySide6.QtWidgets import QApplication, QMainWindow

    class FirstPaint(QObject):
        def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
            if event.type() is QEvent.Type.Paint:
                app.removeEventFilter(self)
                QTimer.singleShot(0, report_and_exit)
            return False

    app = QApplication([])
    window = QMainWindow()
    window.setCentralWidget(pyqtgraph.PlotWidget())
    window.resize(1280, 800)
    first_paint = FirstPaint()
    app.installEventFilter(first_paint)
    window.show()
    app.exec()


def studio_window() -> None:
    """The program as `bh-studio` starts it. It makes its engine once its window was painted."""
    # Nothing else of the program may be imported here: it says itself what it imports, and how.
    sys.modules["bh_studio.ui.engine_thread"] = cast(
        "ModuleType", SimpleNamespace(Engine=lambda _history: report_and_exit())
    )
    from bh_studio import __main__ as program

    program.main([])


if __name__ == "__main__":
    main()
