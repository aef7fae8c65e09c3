"""The line at the bottom: what the engine does, and which model answers."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QTimer, Signal, Slot
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QStatusBar, QWidget

from bh_studio.engine.protocol.events import LoadProgress
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.ui.state.models.downloads import DownloadView
from bh_studio.ui.state.models.words import progress_words, short_state, trouble
from bh_studio.ui.state.words import describe_model
from bh_studio.ui.widgets.announcement import announce
from bh_studio.ui.widgets.elided_controls import ElidedButton
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.theme import GAP_SMALL
from bh_studio.ui.widgets.visible_text import plain_tooltip

_BRIEFLY_MS = 6000
_STEPS = 1000
_MOST_ON_RIGHT = 0.65
# What Qt takes for no limit.
_WIDEST = 2**24 - 1


class StatusLine(QStatusBar):
    """Loading progress and short notices on the left; on the right charts that have folded for want
    of height, downloads and the model.

    charts_wanted: all the same.
    """

    download_chosen = Signal()
    charts_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizeGripEnabled(False)
        self.setContentsMargins(GAP_SMALL, 0, GAP_SMALL, 0)
        self._stage = ElidedLabel("")
        self._progress = QProgressBar()
        self._progress.setTextVisible(False)
        self._progress.setFixedSize(160, 8)
        self._progress.setAccessibleName("Progress of loading the model")
        self._progress.setToolTip("Progress of loading the model")
        # As wide as its text where there is room: what is left goes to short notices.
        self._model = ElidedLabel("muted", takes_room=True)
        self._model.setAccessibleName("Model")
        # Not the line's own messages: Qt shows what they hide again when the text size changes, and
        # paints one over the other.
        self._notice = ElidedLabel("")
        self._notice_end = QTimer(self)
        self._notice_end.setSingleShot(True)
        self._notice_end.setInterval(_BRIEFLY_MS)
        self._notice_end.timeout.connect(self.clear_notice)
        self._has_progress = False
        left = QWidget()
        row = QHBoxLayout(left)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._progress)
        row.addWidget(self._stage, 1)
        row.addWidget(self._notice, 1)
        self.addWidget(left, 1)
        self.charts_button = ElidedButton()
        self.charts_button.setProperty("role", "link")
        self.charts_button.setText("Charts folded: too little height")
        self.charts_button.briefs = ("Charts folded",)
        self.charts_button.setAccessibleName(self.charts_button.text())
        self.charts_button.setToolTip(
            f"{self.charts_button.text()}. Show them all the same (F10); in a higher window, or "
            "with smaller text, they come back by themselves."
        )
        self.charts_button.clicked.connect(self.charts_wanted)
        self.charts_button.hide()
        self.addPermanentWidget(self.charts_button)
        self.download_button = QPushButton()
        self.download_button.setProperty("role", "link")
        self.download_button.setAccessibleName("Downloads")
        self.download_button.setToolTip("Show the downloads")
        self.download_button.clicked.connect(self.download_chosen)
        self.addPermanentWidget(self.download_button)
        self.addPermanentWidget(self._model)
        self.show_state("")
        self.show_downloads([])
        self.show_model(None)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._give_room()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self._give_room()

    def show_folded(self, are_folded: bool) -> None:
        """Say whether the charts have folded for want of height."""
        self.charts_button.setVisible(are_folded)
        self._give_room()

    def _give_room(self) -> None:
        """Leave notices some room beside charts that have folded: the model gives way."""
        most = _WIDEST
        if not self.charts_button.isHidden():
            most = round(self.width() * _MOST_ON_RIGHT) - self.charts_button.sizeHint().width()
        self._model.setMaximumWidth(max(most, 0))

    @property
    def stage(self) -> str:
        """The words on the left."""
        return self._stage.text()

    @property
    def progress_range(self) -> tuple[int, int]:
        """Steps done and steps in all; (0, 0) where the length is not known."""
        return max(0, self._progress.value()), self._progress.maximum()

    @property
    def model_text(self) -> str:
        """The words on the right."""
        return self._model.text()

    def show_progress(self, progress: LoadProgress) -> None:
        """Show a step of loading; a bar that fills only where the engine knows how far it is."""
        self._say(progress.stage)
        if progress.fraction is None:
            self._progress.setRange(0, 0)
        else:
            self._progress.setRange(0, _STEPS)
            self._progress.setValue(round(progress.fraction * _STEPS))
        self._has_progress = True
        self._show_left()

    def show_state(self, text: str) -> None:
        """Show what the engine does where it has no progress to tell."""
        self._has_progress = False
        self._say(text)
        self._show_left()

    @property
    def notice(self) -> str:
        """What is said for a few seconds; empty if nothing is."""
        return self._notice.text()

    def notify(self, text: str) -> None:
        """Say something for a few seconds."""
        self._notice.setText(text)
        self._notice.setToolTip(plain_tooltip(text))
        self._notice_end.start()
        self._show_left()
        announce(self, text)

    @Slot()
    def clear_notice(self) -> None:
        """Say no more what was said for a few seconds."""
        self._notice_end.stop()
        self._notice.setText("")
        self._show_left()

    def _show_left(self) -> None:
        is_noticed = bool(self.notice)
        self._notice.setVisible(is_noticed)
        self._stage.setVisible(not is_noticed)
        self._progress.setVisible(self._has_progress and not is_noticed)

    def show_downloads(self, views: list[DownloadView]) -> None:
        """Say briefly how far the downloads are that run."""
        self.download_button.setVisible(bool(views))
        if not views:
            return
        first = views[0]
        text = f"{first.source.repo.partition('/')[2]}: {short_state(first)}"
        if len(views) > 1:
            text += f" and {len(views) - 1} more"
        self.download_button.setText(text)
        self.download_button.setAccessibleName(f"Download of {text}")
        lines = [f"{view.source}: {trouble(view) or progress_words(view)}" for view in views]
        lines.append("Closing BH Studio pauses a download and keeps what is here.")
        self.download_button.setToolTip(plain_tooltip("\n".join(lines)))

    def show_model(self, model: ModelInfo | None) -> None:
        """Name the loaded model."""
        words = "No model" if model is None else describe_model(model)
        self._model.setText(words)
        self._model.setToolTip(words)
        if model is not None:
            lines = [
                words,
                model.id,
                f"{model.architecture}, context of {model.context_length:,} tokens",
                f"Experts computed by: {model.expert_path}",
                f"Tokens after the prompt by: {model.decode_path}" if model.decode_path else "",
                f"Null: {model.null_samples:,} scores a layer, "
                f"smallest p-value {1 / (model.null_samples + 1):.2g}",
            ]
            self._model.setToolTip(plain_tooltip("\n".join(filter(None, lines))))

    def _say(self, words: str) -> None:
        self._stage.setText(words)
        self._stage.setToolTip(plain_tooltip(words))
