"""The legend of a tint: a strip of its colours with the values beside it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from bh_studio.ui.charts.color_bar import ColorBar, Mark
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.state.tints.tint import EXPERTS, Tint, TintScale
from bh_studio.ui.widgets.theme import Theme


class TintLegend(ColorBar):
    """Lies flat and paints the very colours that stand behind the tokens."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, "", Qt.Orientation.Horizontal, parent)
        self.tint: Tint = EXPERTS
        self._scale: TintScale = ExpertScale()
        self.show_tint(EXPERTS, self._scale)

    @property
    def marks(self) -> tuple[str, ...]:
        """What is written below the strip, as much as there is room for."""
        return tuple(text for _, text in self.fitting_marks())

    def show_tint(self, tint: Tint, scale: TintScale) -> None:
        """Show the scale of a tint."""
        self.tint, self._scale = tint, scale
        labels = scale.labels(2)
        self.setAccessibleName(f"Colour scale: {tint.name}")
        self.setAccessibleDescription(f"{tint.meaning} From {labels[0][1]} to {labels[-1][1]}.")
        self.setToolTip(f"{tint.meaning} The scale keeps still during a run.")
        self.update()

    def color_at(self, place: float) -> QColor:
        return self._scale.tint_at(place, self.theme.colors.surface)

    def marks_for(self, at_most: int) -> list[Mark]:
        return self._scale.labels(at_most)

    def widest(self) -> str:
        return max((text for _, text in self._scale.labels(9)), key=len)
