"""The legend of the expert scale: a strip of colour with numbers, as the charts paint it."""

from __future__ import annotations

from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from bh_studio.ui.charts.color_bar import ColorBar, Mark
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.widgets.theme import Theme

_CAPTION = "Experts"


class ScaleLegend(ColorBar):
    """Paints an ExpertScale from its low to its high end, with the counts beside it."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, _CAPTION, parent=parent)
        self._scale = ExpertScale()
        self._describe()

    @property
    def marks(self) -> tuple[int, ...]:
        """The counts that are written beside the strip, as many as there is room for."""
        return tuple(int(text) for _, text in self.fitting_marks())

    def set_scale(self, scale: ExpertScale) -> None:
        """Show another scale."""
        if scale != self._scale:
            self._scale = scale
            self._describe()
            self.update()

    def color_at(self, place: float) -> QColor:
        scale = self._scale
        return scale.color(scale.low + (scale.high - scale.low) * place)

    def marks_for(self, at_most: int) -> list[Mark]:
        return self._scale.labels(at_most)

    def _describe(self) -> None:
        text = f"Colour of a cell: experts used, from {self._scale.low} to {self._scale.high}"
        self.setAccessibleName("Colour scale of expert counts")
        self.setAccessibleDescription(text)
        self.setToolTip(text + ". The scale keeps still during a run.")
