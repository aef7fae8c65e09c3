"""A slider over the levels of a rule, on which the level that was used stays marked."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtGui import QPainter, QPaintEvent, QPen, QWheelEvent
from PySide6.QtWidgets import QSlider, QStyle, QStyleOptionSlider, QWidget

from bh_studio.ui.state.inspection.level_scale import STEPS, LevelScale
from bh_studio.ui.widgets.theme import Theme

_PAGE = STEPS // 20


class LevelSlider(QSlider):
    """moved: a person tries this level."""

    moved = Signal(float)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self._theme = theme
        self._scale: LevelScale | None = None
        self.setRange(0, STEPS)
        self.setPageStep(_PAGE)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.valueChanged.connect(self._tell)

    def show_level(self, scale: LevelScale, level: float) -> None:
        """Stand at `level`; nobody is told."""
        self._scale = scale
        self.blockSignals(True)
        self.setValue(scale.step_of(level))
        self.blockSignals(False)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self._scale is None:
            return
        option = QStyleOptionSlider()
        self.initStyleOption(option)
        control, style = QStyle.ComplexControl.CC_Slider, self.style()
        groove, handle = (
            style.subControlRect(control, option, part, self)
            for part in (QStyle.SubControl.SC_SliderGroove, QStyle.SubControl.SC_SliderHandle)
        )
        room = groove.width() - handle.width()
        step = self._scale.step_of(self._scale.stored)
        place = QStyle.sliderPositionFromValue(0, STEPS, step, room)
        x = groove.left() + handle.width() // 2 + place
        painter = QPainter(self)
        painter.setPen(QPen(self._theme.colors.alarm, 2))
        painter.drawLine(x, 1, x, self.height() - 2)

    def wheelEvent(self, event: QWheelEvent) -> None:
        # Scrolling the panel must not change the level under the pointer.
        event.ignore()

    @Slot()
    def _tell(self) -> None:
        if self._scale is not None:
            self.moved.emit(self._scale.level_at(self.value()))
