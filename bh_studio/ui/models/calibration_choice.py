"""Which recording of router logits a model's nulls are fitted on. Reads no file."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.theme import GAP_SMALL
from bh_studio.ui.widgets.visible_text import plain_tooltip, visible

FILES = "Calibrations (*.npz)"
_BUNDLED = "Bundled text"
_BUNDLED_MEANING = "Bundled text: nulls are fitted on what comes with the program, and kept."


class CalibrationChoice(QWidget):
    """The bundled text, or a file that somebody made with this model."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.path: Path | None = None
        self.dialog: QFileDialog | None = None
        self._name = ElidedLabel("")
        self._name.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.file_button = _button(
            "File…",
            "Calibration from a file",
            "Take the nulls from a file: one that Model > Save calibration or "
            "`bh-studio calibrate --out` wrote for this very model",
        )
        self.file_button.clicked.connect(self._ask)
        self.bundled_button = _button(
            "Bundled", "Bundled calibration text", "Fit the nulls on the bundled text again"
        )
        self.bundled_button.clicked.connect(self.choose_bundled)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(GAP_SMALL)
        row.addWidget(self._name, 1)
        row.addWidget(self.bundled_button)
        row.addWidget(self.file_button)
        self.setFocusProxy(self.file_button)
        self.choose(None)

    @property
    def words(self) -> str:
        """What is chosen, as shown."""
        return self._name.text()

    def choose(self, path: Path | None) -> None:
        """Take `path`; None for the bundled text."""
        self.path = path
        self._name.setText(_BUNDLED if path is None else visible(path.name, mark_newlines=True))
        meaning = _BUNDLED_MEANING if path is None else str(path)
        self._name.setToolTip(plain_tooltip(meaning))
        self._name.setAccessibleName(f"Calibration: {self._name.text()}")
        self.bundled_button.setVisible(path is not None)
        self.changed.emit()

    @Slot()
    def choose_bundled(self) -> None:
        self.choose(None)

    @Slot()
    def _ask(self) -> None:
        dialog = QFileDialog(self, "Calibration of this model", "", FILES)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if self.path is not None:
            dialog.selectFile(str(self.path))
        dialog.fileSelected.connect(self._take)
        self.dialog = dialog
        dialog.open()

    @Slot(str)
    def _take(self, name: str) -> None:
        self.choose(Path(name))


def _button(words: str, name: str, meaning: str) -> QPushButton:
    button = QPushButton(words)
    button.setProperty("role", "plain")
    button.setAccessibleName(name)
    button.setToolTip(meaning)
    return button
