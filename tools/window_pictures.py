"""Pictures of the real window in each of its states, light and dark, to be looked at.

    python -m tools.window_pictures --out FOLDER [--sizes 1280x800 ...] [--only STATE ...] [--text]

Runs the embedded model in a window of its own, with settings and runs of nobody. Those of README
are "inspector" and "models" at 1280x800.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication

from bh_studio.engine.protocol.texts import shipped_text
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules import parse_rule
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.widgets.theme import Theme
from tools.embedded_window import embedded_window, until

_PROMPT = "The old fisherman rowed out to the island, and there he found"
_TOKENS = 128
_TOKEN, _LAYER = 30, 7
_SIZES = ("1024x640", "1280x800", "1920x1080")
_SCHEMES = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}
# Characters of the text that sides read.
_TEXT = 950


@dataclass(frozen=True)
class _State:
    """rules: of the sides beside the model's own routing. earlier: what the prompt was answered
    with before. is_same_text: whether the sides read a given text. "start" has not run yet."""

    rules: tuple[str, ...] = ("bh:0.05",)
    is_inspected: bool = False
    earlier: tuple[str, ...] = ()
    is_same_text: bool = False


_STATES = {
    "start": _State(),
    "two": _State(),
    "inspector": _State(is_inspected=True),
    "runs": _State(earlier=("bh:0.01", "bh:0.1")),
    "three": _State(("bh:0.05", "cut:0.04")),
    "four": _State(("bh:0.05", "cut:0.04", "entropy:0.8"), is_inspected=True),
    "same-text": _State(is_same_text=True),
    "same-text-four": _State(
        ("bh:0.05", "cut:0.04", "top-k:4"), is_inspected=True, is_same_text=True
    ),
}

_PLACES = ("history", "models")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", default=_SIZES)
    states = (*_STATES, *_PLACES)
    parser.add_argument("--only", nargs="+", choices=states, default=states)
    parser.add_argument("--text", type=int, default=100, help="size of text, in percent")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        for name in ("CONFIG", "DATA", "STATE", "CACHE"):
            os.environ[f"XDG_{name}_HOME"] = f"{home}/{name.lower()}"
        app = QApplication(sys.argv[:1])
        pg.setConfigOptions(antialias=True)
        font = app.font()
        for scheme in _SCHEMES:
            # Each theme takes what it finds for the system's size.
            app.setFont(font)
            theme = Theme(app, _SCHEMES[scheme], arguments.text)
            _write(app, theme, scheme, arguments)
    return 0


def _write(app: QApplication, theme: Theme, scheme: str, asked: argparse.Namespace) -> None:
    with embedded_window(app, theme) as window:
        for state in asked.only:
            if state in _PLACES:
                window.actions_.places[state].trigger()
            else:
                _compare(app, window, state)
            for size in asked.sizes:
                width, height = map(int, size.split("x"))
                window.resize(width, height)
                _rest(app, 0.6)
                window.grab().save(str(asked.out / f"{state}-{size}-{scheme}.png"))


def _compare(app: QApplication, window: MainWindow, state: str) -> None:
    page, session, wanted = window.compare, window.session, _STATES[state]
    window.actions_.compare.trigger()
    session.clear()
    page.settings_panel.show_generation(GenerationParameters(_TOKENS))
    page.prompt.mode.choose(wanted.is_same_text)
    text = shipped_text().content[:_TEXT]
    page.prompt.set_prompt(text if wanted.is_same_text else _PROMPT)
    for rules in (*((rule,) for rule in wanted.earlier), wanted.rules):
        page.settings_panel.show_sides((None, *map(parse_rule, rules)))
        if state != "start":
            window.actions_.run.trigger()
            until(app, lambda: not session.is_busy and session.sides.runs[0].token_count > 0)
    window.actions_.inspector.setChecked(wanted.is_inspected)
    if wanted.is_inspected:
        session.selection.select(1, _TOKEN, _LAYER)
        until(app, lambda: page.inspection.token is not None)


def _rest(app: QApplication, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        app.processEvents()
        time.sleep(0.001)


if __name__ == "__main__":
    sys.exit(main())
