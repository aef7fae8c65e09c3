"""The window of bh-studio, opened as always, that also reports what is on its screen.

    python -m tools.interruptions.watched_window REPORT [--types] [options of the window]

A line of JSON goes to REPORT whenever the prompt or the number of tokens on the screen has changed:
when (time.monotonic), the prompt, and the tokens of both sides. --types: a word is typed into the
prompt three times a second.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from typing import Any

# As the program has it while Qt is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from PySide6.QtCore import QObject, QTimer, Slot  # noqa: E402
from PySide6.QtGui import QTextCursor  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

from bh_studio import __main__ as program  # noqa: E402
from bh_studio.ui.main_window import MainWindow  # noqa: E402

_LOOK_MS = 20
_TYPE_MS = 333


class _Watcher(QObject):
    """Looks at the window as soon as there is one."""

    def __init__(self, report: int, types: bool) -> None:
        super().__init__()
        self._report = report
        self._last: tuple[Any, ...] = ()
        self._words = (f"word{number} " for number in itertools.count())
        self._looking = QTimer(self)
        self._looking.timeout.connect(self._look)
        self._looking.start(_LOOK_MS)
        if types:
            self._typing = QTimer(self)
            self._typing.timeout.connect(self._type)
            self._typing.start(_TYPE_MS)

    @Slot()
    def _look(self) -> None:
        window = _window()
        if window is None:
            return
        page = window.compare
        tokens = [panel.text.token_count for panel in page.answers.shown]
        shown = (page.prompt.prompt, *tokens)
        if shown != self._last:
            self._last = shown
            line = {"at": time.monotonic(), "prompt": shown[0], "tokens": shown[1:]}
            os.write(self._report, f"{json.dumps(line)}\n".encode())

    @Slot()
    def _type(self) -> None:
        window = _window()
        if window is not None:
            editor = window.compare.prompt.editor
            editor.moveCursor(QTextCursor.MoveOperation.End)
            editor.insertPlainText(next(self._words))


def _window() -> MainWindow | None:
    """The window that a person could look at; nobody types into one that is closed."""
    windows = (w for w in QApplication.topLevelWidgets() if isinstance(w, MainWindow))
    return next((window for window in windows if window.isVisible()), None)


def main() -> int:
    """Open the window; the program's exit code."""
    report, *arguments = sys.argv[1:]
    types = "--types" in arguments
    # The program uses the application that is there.
    app = QApplication(sys.argv[:1])
    watcher = _Watcher(os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND), types)
    code = program.main([argument for argument in arguments if argument != "--types"])
    watcher.deleteLater()
    app.processEvents()
    return code


if __name__ == "__main__":
    sys.exit(main())
