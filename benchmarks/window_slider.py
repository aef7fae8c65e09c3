"""How soon the token inspector shows what another level would do, while its slider is moved.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.window_slider --out FILE

The real window with the real engine on the embedded model. From the moment in which a level is
tried to the end of the frame that draws its answer, one level after the other.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtWidgets import QApplication

from benchmarks.summary import publish, spread
from bh_studio.engine.records.decisions.token_inspection import InspectedToken
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules import parse_rule
from bh_studio.ui.inspector.token_inspector import TokenInspector
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.state.inspection.inspection_model import InspectionModel
from bh_studio.ui.widgets.theme import Theme
from tools.embedded_window import embedded_window, until

_PROMPT = "Once upon a time there was a little girl who"
_TOKENS = 128
_LEVELS = np.geomspace(0.001, 0.4, 100)


def main() -> None:
    """Measure, print, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    app = QApplication([])
    with embedded_window(app, Theme(app)) as window:
        result = _measured(app, window)
    publish(result, arguments.out)


def _measured(app: QApplication, window: MainWindow) -> dict[str, Any]:
    session, page = window.session, window.compare
    session.run(_PROMPT, (None, parse_rule("bh:0.05")), GenerationParameters(_TOKENS))
    until(app, lambda: session.session is not None)
    session.selection.select(1, _TOKENS // 2, 7)
    window.actions_.inspector.setChecked(True)
    found = page.inspection
    until(app, lambda: found.token is not None)
    took = []
    for level in map(float, _LEVELS):
        before, start = found.what_if, time.perf_counter()
        found.try_level(level)
        until(app, partial(_is_drawn, page.inspector, found, before))
        app.processEvents()
        took.append((time.perf_counter() - start) * 1000)
    start = time.perf_counter()
    until(app, lambda: found.run_mean is not None)
    assert session.session is not None
    return {
        "what": "milliseconds from a tried level to the end of the frame that draws its answer",
        "levels": len(took),
        "ms": {**spread(took, 1), "p95": round(float(np.percentile(took, 95)), 1)},
        "whole_run_after_ms": round((time.perf_counter() - start) * 1000, 1),
        "tokens": _TOKENS,
        "environment": session.session.environment,
    }


def _is_drawn(
    inspector: TokenInspector, found: InspectionModel, before: InspectedToken | None
) -> bool:
    return found.what_if is not before and inspector.clock.is_idle


if __name__ == "__main__":
    main()
