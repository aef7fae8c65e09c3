"""A text from a file for all sides to read, asked for with a dialog that never blocks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot
from PySide6.QtWidgets import QFileDialog, QWidget

from bh_studio.engine.protocol.events import Event, Failed, TextRead
from bh_studio.engine.protocol.requests import ReadText
from bh_studio.ui.state.jobs_model import JobsModel

_WORDS = "Texts (*.txt *.md);;All files (*)"
# Far more than a model reads at once, and what an editor still takes in a moment.
MOST_BYTES = 2**20
# It looks for the end of a line in ever longer time where there is none.
_MOST_UNBROKEN = 100_000
_UNBROKEN = re.compile(rf"\S{{{_MOST_UNBROKEN + 1}}}")


class TextOpening(QObject):
    """read: here is the Text that was asked for last. failed: why it is not, with a Failed.

    folder: where to begin to look; later texts are looked for where the last one was chosen.
    """

    read = Signal(object)
    failed = Signal(object)

    def __init__(self, jobs: JobsModel, folder: Callable[[], Path], parent: QWidget) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self._folder = folder
        self._chosen_in: Path | None = None
        self._parent = parent
        self._job = 0
        self.dialog: QFileDialog | None = None

    @Slot()
    def ask(self) -> None:
        """Ask for a file and have it read."""
        if self.dialog is not None:
            self.dialog.deleteLater()
        folder = self._chosen_in or self._folder()
        self.dialog = QFileDialog(self._parent, "Open a text", str(folder), _WORDS)
        self.dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        self.dialog.fileSelected.connect(self._open_chosen)
        self.dialog.open()

    def open_path(self, path: Path) -> None:
        """Have the text in `path` read, in place of what is being read."""
        if self._jobs.has_engine:
            self._jobs.cancel(self._job)
            self._job = self._jobs.ask(ReadText(path, MOST_BYTES), self._take)

    @Slot(str)
    def _open_chosen(self, name: str) -> None:
        self._chosen_in = Path(name).parent
        self.open_path(Path(name))

    def _take(self, event: Event) -> None:
        match event:
            case TextRead(text) if _UNBROKEN.search(text.content):
                message = f"{text.name} goes on for more than {_MOST_UNBROKEN:,} characters "
                advice = "Break its lines, or take a part of it."
                self.failed.emit(Failed(f"{message}without a space or a new line.", advice, ""))
            case TextRead(text):
                self.read.emit(text)
            case Failed():
                self.failed.emit(event)
