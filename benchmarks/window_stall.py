"""How long the window's event loop is held up, and how its memory grows, over many runs.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.window_stall --out FILE

The real application with the real engine on the embedded model, one window for all runs, two sides,
two charts and the token inspector open. A timer is due every 5 ms; how late each tick comes is the
time in which the window could not have answered a key or a click. Measured from the first token to
the end of a run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PySide6.QtCore import QElapsedTimer, QObject, Qt, QTimer, Slot
from PySide6.QtWidgets import QApplication

from benchmarks.summary import publish, spread
from bh_studio import app as studio
from bh_studio.engine.protocol.events import Finished, ModelLoaded, Report, TokenGenerated
from bh_studio.engine.records.session import Session
from bh_studio.ui.engine_thread import Engine
from bh_studio.ui.main_window import MainWindow

_INTERVAL_MS = 5
_PROMPT = "Once upon a time there was a little girl who"
_SIZE = (1280, 800)
# Runs by which everything has been made once.
_SETTLED = 5


class Runs(QObject):
    """Runs the prompt again and again, and notes how late each tick of the window's thread was."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self.figures: list[dict[str, Any]] = []
        self.environment: dict[str, Any] = {}
        self._left = runs
        self._late: list[float] = []
        self._clock = QElapsedTimer()
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.timeout.connect(self._tick)

    @Slot(object)
    def take(self, report: Report) -> None:
        """Follow the run that is in flight, and begin the next one."""
        match report.event:
            case ModelLoaded():
                QTimer.singleShot(0, self._begin)
            case TokenGenerated() if not self._timer.isActive():
                self._clock.start()
                self._timer.start()
            case Finished(session):
                self._timer.stop()
                self._note(session)
                # What follows a run, such as the last refresh, is over by then.
                QTimer.singleShot(300, self._begin)

    @Slot()
    def _begin(self) -> None:
        window = next(w for w in QApplication.topLevelWidgets() if isinstance(w, MainWindow))
        if not self._left:
            window.close()
            return
        self._left -= 1
        self._late = []
        window.actions_.inspector.setChecked(True)
        window.actions_.run.trigger()

    def _note(self, session: Session) -> None:
        late = np.array(self._late)
        self.environment = session.environment
        self.figures.append(
            {
                "ticks": len(late),
                "tokens": sum(len(record.token_ids) for record in session.records),
                "median_ms": float(np.median(late)),
                "p99_ms": float(np.percentile(late, 99)),
                "worst_ms": float(late.max()),
                "tokens_per_second": [record.tokens_per_second for record in session.records],
                "resident_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
            }
        )

    @Slot()
    def _tick(self) -> None:
        passed = self._clock.nsecsElapsed() / 1e6
        self._clock.restart()
        self._late.append(max(0.0, passed - _INTERVAL_MS))


def main() -> None:
    """Measure, print, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=800)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = Runs(arguments.runs)

    def make_engine() -> Engine:
        engine = Engine()
        engine.reported.connect(runs.take)
        return engine

    options = studio.WindowOptions(
        prompt=_PROMPT,
        rules=({"level": 0.05},),
        generation={"max_new_tokens": arguments.tokens},
        size=_SIZE,
    )
    if studio.run_window(options, make_engine) != 0 or len(runs.figures) != arguments.runs:
        raise SystemExit("A run failed; its message is above.")
    figures = runs.figures
    result = {
        "what": "lateness of a 5 ms timer in the window's thread, in milliseconds, while two sides "
        "stream with two charts and the inspector open; one window for all runs",
        "tokens_a_side": arguments.tokens,
        "window": _SIZE,
        "p99_ms": spread([one["p99_ms"] for one in figures], 1),
        "worst_ms": spread([one["worst_ms"] for one in figures], 1),
        "first_run_worst_ms": round(figures[0]["worst_ms"], 1),
        "last_run": {name: round(figures[-1][name], 1) for name in ("p99_ms", "worst_ms")},
        "grown_mb_since_settled": round(
            figures[-1]["resident_mb"] - figures[min(_SETTLED, len(figures)) - 1]["resident_mb"], 1
        ),
        "runs": figures,
        "environment": runs.environment,
    }
    publish(result, arguments.out)


if __name__ == "__main__":
    main()
