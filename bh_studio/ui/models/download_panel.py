"""The download of the selected model: how far it is, and what can be done about it."""

from __future__ import annotations

from PySide6.QtCore import Slot
from PySide6.QtGui import Qt
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.hub.source import HubSource, parse_hub_source
from bh_studio.engine.hub.status import HubState
from bh_studio.engine.units import format_bytes
from bh_studio.ui.state.models.downloads import DownloadView, Phase
from bh_studio.ui.state.models.model_entry import Kind, ModelEntry
from bh_studio.ui.state.models.model_shelf import ModelShelf
from bh_studio.ui.state.models.words import format_amounts, progress_words, trouble
from bh_studio.ui.widgets.notice import Notice
from bh_studio.ui.widgets.progress_line import ProgressLine
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, Theme, set_role


class DownloadPanel(QWidget):
    """For one entry at a time; hidden for a model that no hub has."""

    def __init__(self, shelf: ModelShelf, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shelf = shelf
        self._entry: ModelEntry | None = None
        self.question: QMessageBox | None = None
        self._state = QLabel()
        self._state.setTextFormat(Qt.TextFormat.PlainText)
        self._state.setWordWrap(True)
        self._state.setAccessibleName("What of the model is on this machine")
        self.progress = ProgressLine("Progress of the download")
        self.trouble = Notice(theme, "Trouble with the download")
        self.start_button = QPushButton()
        self.start_button.setProperty("role", "primary")
        self.start_button.clicked.connect(self.start)
        self.pause_button = QPushButton("Pause")
        self.pause_button.setProperty("role", "plain")
        self.pause_button.setAccessibleName("Pause the download")
        self.pause_button.setToolTip("End the download for now and keep what is here")
        self.pause_button.clicked.connect(self.pause)
        self.discard_button = QPushButton("Discard…")
        self.discard_button.setProperty("role", "plain")
        self.discard_button.setAccessibleName("Discard the unfinished download")
        self.discard_button.setToolTip("Remove what the unfinished download has left; asks first")
        self.discard_button.clicked.connect(self.ask_to_discard)
        self._lay_out()

    @property
    def state(self) -> str:
        """What it says of the model on this machine."""
        return self._state.text()

    def show_entry(self, entry: ModelEntry) -> None:
        """Show the download of `entry` as it is now."""
        if self._entry is None or self._entry.source != entry.source:
            self._close_question()
        self._entry = entry
        self.setVisible(entry.kind is Kind.HUB)
        view = self._shelf.downloads.view(entry.source)
        is_running = view is not None and view.is_running
        self._show_state(entry.source, view)
        if view is not None and is_running:
            self.progress.show_progress(progress_words(view), view.share)
        self.progress.setVisible(is_running)
        bad = view is not None and view.phase is not Phase.VERIFYING and bool(trouble(view))
        self.trouble.say("" if view is None else trouble(view), is_alarm=bad)
        self._show_buttons(entry.source, view)

    @Slot()
    def start(self) -> None:
        """Start or go on with the download."""
        source = self._source()
        if source is not None:
            self._shelf.downloads.start(source)

    @Slot()
    def pause(self) -> None:
        """End it for now."""
        source = self._source()
        if source is not None:
            self._shelf.downloads.pause(source)

    @Slot()
    def ask_to_discard(self) -> None:
        """Ask whether what an unfinished download has left can go."""
        source = self._source()
        if source is None:
            return
        self._close_question()
        amount = format_bytes(self._shelf.status(str(source)).present)
        box = QMessageBox(self)
        box.setIcon(QMessageBox.Icon.Question)
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setWindowTitle("Discard the download")
        box.setText(f"Discard the unfinished download of {source}?")
        box.setInformativeText(
            f"{amount} of it are here. Incomplete files are removed and would have to be fetched "
            "again; complete ones stay, for other programs use them too."
        )
        discard = box.addButton("Discard", QMessageBox.ButtonRole.DestructiveRole)
        keep = box.addButton("Keep", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(keep)
        box.setEscapeButton(keep)
        discard.clicked.connect(self.discard)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.finished.connect(self._forget_question)
        self.question = box
        box.open()

    @Slot()
    def discard(self) -> None:
        """Remove what an unfinished download has left."""
        source = self._source()
        view = None if source is None else self._shelf.downloads.view(str(source))
        if source is not None and (view is None or not view.is_running):
            self._shelf.downloads.forget(source)
            self._shelf.statuses.discard(source)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.setSpacing(GAP_SMALL)
        for button in (self.start_button, self.pause_button, self.discard_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, GAP, 0, 0)
        column.setSpacing(GAP_SMALL)
        column.addWidget(self._state)
        column.addWidget(self.progress)
        column.addWidget(self.trouble)
        column.addLayout(buttons)

    def _show_state(self, source: str, view: DownloadView | None) -> None:
        status, size = self._shelf.status(source), self._shelf.size_words(source)
        if view is not None and view.is_running:
            text = "Goes on while this window is closed and while a comparison runs."
        elif self._shelf.statuses.status(source) is None:
            text = "Looking what is here…"
        elif status.state is HubState.NOT_THERE:
            text = "Not on this machine."
            if size:
                text = f"Not on this machine; {size} to fetch, and about as much memory to load it."
        elif status.state is HubState.PARTIAL:
            amount = (
                f"{format_amounts(status.present, status.total)} are"
                if status.total
                else f"{format_bytes(status.present)} of it are"
            )
            text = f"{amount} here; a download goes on from there."
        elif status.state is HubState.UNVERIFIED:
            text = (
                "Found in the cache of the hub's files, but never compared with the hub's hashes "
                "by this program. It can be loaded; verifying it needs the network."
            )
        else:
            text = f"Complete and verified, commit {status.commit[:7]}."
        self._state.setText(text)

    def _show_buttons(self, source: str, view: DownloadView | None) -> None:
        state = self._shelf.status(source).state
        is_running = view is not None and view.is_running
        is_failed = view is not None and view.phase is Phase.FAILED
        words, meaning = {
            HubState.NOT_THERE: (
                "Download",
                "Fetch the model from the hub, into the cache that other programs use too",
            ),
            HubState.PARTIAL: ("Resume", "Go on with the download"),
            HubState.UNVERIFIED: ("Verify", "Compare the files with the hub's hashes"),
            HubState.COMPLETE: ("", ""),
        }[state]
        if is_failed and words:
            words, meaning = "Retry", "Try again; what is here is kept"
        self.start_button.setText(words)
        self.start_button.setAccessibleName(f"{words} the model")
        self.start_button.setToolTip(meaning)
        set_role(self.start_button, "plain" if state is HubState.UNVERIFIED else "primary")
        is_known = self._shelf.statuses.status(source) is not None
        self.start_button.setVisible(bool(words) and is_known and not is_running)
        self.pause_button.setVisible(is_running)
        self.pause_button.setEnabled(view is not None and view.phase is not Phase.STOPPING)
        self.discard_button.setVisible(state is HubState.PARTIAL and not is_running)

    def _source(self) -> HubSource | None:
        return None if self._entry is None else parse_hub_source(self._entry.source)

    def _close_question(self) -> None:
        if self.question is not None:
            self.question.reject()

    @Slot()
    def _forget_question(self) -> None:
        self.question = None
