"""How long the window's event loop is held up while both panels stream.

    QT_QPA_PLATFORM=offscreen python benchmarks/window_stall.py --out FILE

The real application with the real engine on the embedded model. A timer is due every 5 ms; how
late each tick comes is the time in which the window could not have answered a key or a click.
Measured from the first token to the end of the run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QObject, Qt, QTimer, Slot

from bh_studio import app as studio
from bh_studio.engine.protocol.events import Finished, Report, TokenGenerated
from bh_studio.ui.engine_thread import Engine

INTERVAL_S = 0.005


class Stalls(QObject):
    """Ticks in the GUI thread and notes how late each tick was, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[float] = []
        self.tokens = 0
        self.environment: dict[str, Any] = {}
        self._last = 0.0
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(int(INTERVAL_S * 1000))
        self._timer.timeout.connect(self._tick)

    @Slot(object)
    def take(self, report: Report) -> None:
        """Measure from the first token to the end of the run."""
        event = report.event
        if isinstance(event, TokenGenerated):
            self.tokens += 1
            if not self._timer.isActive():
                self._last = time.perf_counter()
                self._timer.start()
        elif isinstance(event, Finished):
            self._timer.stop()
            self.environment = event.document.environment

    @Slot()
    def _tick(self) -> None:
        now = time.perf_counter()
        self.late.append(max(0.0, now - self._last - INTERVAL_S))
        self._last = now


def main() -> None:
    """Measure, print, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = [one_run(arguments.tokens) for _ in range(arguments.runs)]
    result = {
        "what": "lateness of a 5 ms timer in the window's thread while both panels stream",
        "tokens_a_side": arguments.tokens,
        "window": [1280, 800],
        "runs": [run["figures"] for run in runs],
        "median_p99_ms": float(np.median([run["figures"]["p99_ms"] for run in runs])),
        "worst_ms": max(run["figures"]["worst_ms"] for run in runs),
        "environment": runs[-1]["environment"],
    }
    print(json.dumps({key: result[key] for key in ("runs", "median_p99_ms", "worst_ms")}, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def one_run(tokens: int) -> dict[str, Any]:
    """One comparison in a window of its own; its stalls in milliseconds."""
    stalls = Stalls()

    def make_engine() -> Engine:
        engine = Engine()
        engine.reported.connect(stalls.take)
        return engine

    with tempfile.TemporaryDirectory() as folder:
        options = studio.WindowOptions(
            prompt="Once upon a time there was a little girl who",
            run=True,
            quit=True,
            save=Path(folder, "run.bhsession"),
            generation={"max_new_tokens": tokens},
            size=(1280, 800),
        )
        if studio.run_window(options, make_engine) != 0:
            raise SystemExit("The run failed; its message is above.")
    late = np.array(stalls.late) * 1000
    return {
        "figures": {
            "ticks": len(late),
            "tokens": stalls.tokens,
            "median_ms": float(np.median(late)),
            "p99_ms": float(np.percentile(late, 99)),
            "worst_ms": float(late.max()),
        },
        "environment": stalls.environment,
    }


if __name__ == "__main__":
    main()
