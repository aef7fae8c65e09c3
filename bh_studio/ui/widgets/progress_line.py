"""A thin bar and words that say how far something is."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QProgressBar, QVBoxLayout, QWidget

from bh_studio.ui.widgets.theme import GAP_SMALL, GAP_TINY
from bh_studio.ui.widgets.visible_text import visible

_STEPS = 1000
_THICKNESS = GAP_SMALL


class ProgressLine(QWidget):
    """Fills as far as is known; runs to and fro where nothing is."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(_THICKNESS)
        self._bar.setAccessibleName(name)
        self._bar.setToolTip(name)
        self._words = QLabel()
        self._words.setProperty("role", "muted")
        self._words.setTextFormat(Qt.TextFormat.PlainText)
        self._words.setWordWrap(True)
        self._words.setAccessibleName(f"{name}, in words")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, GAP_TINY, 0, 0)
        column.setSpacing(GAP_TINY)
        column.addWidget(self._bar)
        column.addWidget(self._words)

    @property
    def words(self) -> str:
        """What it says."""
        return self._words.text()

    @property
    def steps(self) -> tuple[int, int]:
        """Steps done and steps in all; (0, 0) where the length is not known."""
        return max(0, self._bar.value()), self._bar.maximum()

    def show_progress(self, words: str, share: float | None) -> None:
        """Say `words`, and fill to `share`, from 0 to 1; None where that is not known."""
        self._words.setText(visible(words))
        if share is None:
            self._bar.setRange(0, 0)
        else:
            self._bar.setRange(0, _STEPS)
            self._bar.setValue(round(share * _STEPS))
