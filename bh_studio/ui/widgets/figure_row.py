"""Named numbers in columns, on as many lines as the width asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.theme import GAP, GAP_TINY


class FigureRow(QWidget):
    """Breaks its figures into lines instead of forcing the window to be wide."""

    def __init__(self, figures: Sequence[QWidget], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._figures = list(figures)
        self._columns = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(GAP)
        self._grid.setVerticalSpacing(GAP_TINY)
        # The width decides the lines, so the lines must not decide the width.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._arrange(len(self._figures))

    @property
    def columns(self) -> int:
        """Figures on a line now."""
        return self._columns

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self._fit()

    def event(self, event: QEvent) -> bool:
        # A figure's text may have become wider or narrower.
        if event.type() is QEvent.Type.LayoutRequest:
            self._fit()
        return super().event(event)

    def _fit(self) -> None:
        count = len(self._figures)
        for lines in range(1, count + 1):
            columns = -(-count // lines)
            whole = self._widths(columns, QWidget.sizeHint)
            # A third line would take more room than numbers that are cut are worth.
            cut = self._widths(columns, QWidget.minimumSizeHint)
            for widths in (whole, cut) if lines > 1 else (whole,):
                if sum(widths) + GAP * (columns - 1) <= self.width():
                    self._arrange(columns)
                    self._set_least(widths)
                    return
        self._arrange(1)
        self._set_least([0])

    def _widths(self, columns: int, hint: Callable[[QWidget], QSize]) -> list[int]:
        """What the widest figure of each column needs, as `hint` says."""
        widths = [hint(figure).width() for figure in self._figures]
        return [max(widths[column::columns]) for column in range(columns)]

    def _set_least(self, widths: list[int]) -> None:
        for column in range(len(self._figures)):
            least = widths[column] if column < len(widths) else 0
            # Each time it is set, even to what it is, the grid asks for a layout, which leads here.
            if self._grid.columnMinimumWidth(column) != least:
                self._grid.setColumnMinimumWidth(column, least)

    def _arrange(self, columns: int) -> None:
        if columns == self._columns:
            return
        for column in range(len(self._figures)):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
        for number, figure in enumerate(self._figures):
            self._grid.addWidget(figure, number // columns, number % columns)
        self._columns = columns
        self._grid.invalidate()
        self.updateGeometry()


NONE_YET = "–"


class Figure(QWidget):
    """Shows a value with its name; the tooltip says exactly what the value means."""

    def __init__(
        self, name: str, meaning: str, *, role: str = "value", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.name = name
        self._label = QLabel(name)
        self._label.setProperty("role", "muted")
        self._meaning = meaning
        self._value = ElidedLabel(role, takes_room=True)
        self._value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setToolTip(meaning)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._label)
        layout.addWidget(self._value)
        self.show_value(None)

    @property
    def text(self) -> str:
        """The value as shown."""
        return self._value.text()

    def rename(self, name: str) -> None:
        """Show `name` above the value from now on."""
        if name != self.name:
            self.name = name
            self._label.setText(name)
            self._value.setAccessibleName(f"{name}: {self.text}")

    def show_value(self, text: str | None) -> None:
        """Show `text`; None where there is no number yet."""
        shown = NONE_YET if text is None else text
        if shown != self._value.text() or not self._value.accessibleName():
            self._value.setText(shown)
            self._value.setToolTip(self._meaning if text is None else f"{text}\n{self._meaning}")
            self._value.setAccessibleName(f"{self.name}: {shown}")
