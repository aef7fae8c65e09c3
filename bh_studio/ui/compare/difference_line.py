"""How each side differs from the first, a line of words a side, and the legend of the tints."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from bh_studio.engine.rules.sides import MOST_SIDES
from bh_studio.ui.charts.scale_legend import ScaleLegend
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.side_difference import difference_meaning, difference_words
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.theme import GAP, GAP_LARGE, GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip

# From these widths on there is room for the legend, and for what it is of.
_LEGEND_LETTERS, _CAPTION_LETTERS = 130, 190


class DifferenceLine(QFrame):
    """Says what the other sides did against side A in the run on screen. Measured values only."""

    def __init__(self, sides: RunSides, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._sides = sides
        self.setProperty("role", "card")
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(self.updateGeometry)
        self.lines = tuple(ElidedLabel("") for _ in range(MOST_SIDES - 1))
        self.legend = ScaleLegend(theme, softened=True)
        self._caption = QLabel("Mean experts of a token")
        self._caption.setProperty("role", "muted")
        self._caption.setToolTip(self.legend.toolTip())
        # On one line, cut where it does not fit, while the window has no second one to give.
        self.notice = ElidedLabel("muted")
        self.notice.setAccessibleName("What should be known of these numbers")
        words = QVBoxLayout()
        words.setSpacing(GAP_TINY)
        for line in (*self.lines, self.notice):
            line.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            words.addWidget(line)
        row = QHBoxLayout(self)
        row.setContentsMargins(GAP, GAP_TINY, GAP, GAP_TINY)
        row.setSpacing(GAP_LARGE)
        row.addLayout(words, 1)
        row.addWidget(self._caption)
        row.addWidget(self.legend)
        self.refresh()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        # Charts have a legend too; the words need the room more.
        letters = self.width() / self.fontMetrics().averageCharWidth()
        self.legend.setVisible(letters > _LEGEND_LETTERS)
        self._caption.setVisible(letters > _CAPTION_LETTERS)
        # WORKAROUND: a layout that is placing its parts takes no notice of one that becomes higher
        # meanwhile, and would leave it lying over the answers; it has to be asked again afterwards.
        self._settled.start(0)

    def refresh(self) -> None:
        """Show the runs as they are now, and under their numbers what should be known of them."""
        sides = self._sides
        for side, line in enumerate(self.lines, start=1):
            is_shown = side < len(sides.runs)
            line.setVisible(is_shown or (side == 1 and not sides.runs))
            if is_shown:
                text = difference_words(sides, side)
                line.setText(text)
                line.setAccessibleName(text)
                line.setToolTip(plain_tooltip(f"{text}\n\n{difference_meaning(sides, side)}"))
            else:
                line.setText("")
        self.notice.setText("  ".join(sides.notices))
        self.notice.setToolTip(plain_tooltip("\n".join(sides.notices)))
        self.notice.setVisible(bool(sides.notices))
        if sides.runs:
            self.legend.set_scale(sides.runs[0].scale)
