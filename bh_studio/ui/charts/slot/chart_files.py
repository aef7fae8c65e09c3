"""A chart written to a file of the user's, as a picture or as numbers; the dialog never blocks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, QStandardPaths, Signal, Slot
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QWidget

from bh_studio.engine.errors import as_sentence
from bh_studio.engine.files.atomic import write_atomically
from bh_studio.engine.protocol.events import Failed
from bh_studio.ui.charts.chart import Chart
from bh_studio.ui.charts.slot.picture import image_of, png_of, svg_of
from bh_studio.ui.widgets.file_name import fitting, name_from


class ChartFiles(QObject):
    """What is written is what was drawn when it was asked for, not when a name was chosen.

    written: with a sentence. failed: with a Failed; what was at the path is still there.
    dialog: the one that asks for a name now, if any.
    """

    written = Signal(str)
    failed = Signal(object)

    def __init__(self, owner: QWidget) -> None:
        super().__init__(owner)
        self._owner = owner
        self._folder = QStandardPaths.writableLocation(
            QStandardPaths.StandardLocation.PicturesLocation
        )
        self.dialog: QFileDialog | None = None

    def copy(self, chart: Chart) -> None:
        """Put the picture into the clipboard."""
        QGuiApplication.clipboard().setImage(image_of(chart))
        self.written.emit("The picture is in the clipboard.")

    def save_png(self, chart: Chart) -> None:
        """Ask for a file and write the picture to it in pixels."""
        self._ask(chart, "Save picture", "PNG picture (*.png)", ".png", png_of(chart))

    def save_svg(self, chart: Chart) -> None:
        """Ask for a file and write the picture to it as lines and letters."""
        self._ask(chart, "Save picture", "SVG drawing (*.svg)", ".svg", svg_of(chart))

    def save_csv(self, chart: Chart) -> None:
        """Ask for a file and write the numbers to it."""
        # Half of a pair of surrogates, which a model may say, has no bytes.
        data = chart.numbers().to_csv().encode("utf-8", "replace")
        self._ask(chart, "Save numbers", "CSV (*.csv)", ".csv", data)

    def _ask(self, chart: Chart, title: str, words: str, suffix: str, data: bytes) -> None:
        if self.dialog is not None:
            self.dialog.deleteLater()
        dialog = QFileDialog(self._owner.window(), title, self._folder, words)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(suffix.removeprefix("."))
        dialog.selectFile(fitting(name_from(_name(chart), "chart"), suffix))
        dialog.fileSelected.connect(partial(self._write, data))
        self.dialog = dialog
        dialog.open()

    @Slot(str)
    def _write(self, data: bytes, name: str) -> None:
        path = Path(name)
        self._folder = str(path.parent)
        try:
            write_atomically(path, data)
        except OSError as error:
            advice = f"{as_sentence(error)} Choose another place or name."
            self.failed.emit(Failed(f"{path.name} could not be written.", advice, ""))
            return
        self.written.emit(f"Saved to {path}")


def _name(chart: Chart) -> str:
    title = chart.title.replace("×", "by")
    return f"{title} {chart.side.name}" if chart.is_of_one_side else title
