"""How each side differs from the first, a line of words a side, and what the tints say."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer, Slot
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from bh_studio.engine.rules.sides import MOST_SIDES
from bh_studio.ui.compare.tint_legend import TintLegend
from bh_studio.ui.compare.tint_menu import TintMenu
from bh_studio.ui.state.reading.obstacle import Obstacle
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.side_difference import difference_meaning, difference_parts
from bh_studio.ui.state.tints.tinting import Tinting
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.part_line import PartLine
from bh_studio.ui.widgets.theme import GAP, GAP_LARGE, GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip

# From these widths on there is room for the choice of a tint, and for its legend.
_CHOICE_LETTERS, _LEGEND_LETTERS = 90, 130


class DifferenceLine(QFrame):
    """Says what the other sides did against side A in the run on screen. Measured values only.

    tint_menu: of what the background of the tokens says. expected: what will stand here, before the
    first run.
    """

    def __init__(
        self, sides: RunSides, tinting: Tinting, theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._sides = sides
        self._tinting = tinting
        self._shown: tuple[object, ...] = ()
        self.setProperty("role", "card")
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.timeout.connect(self.updateGeometry)
        self.lines = tuple(PartLine("") for _ in range(MOST_SIDES - 1))
        self.legend = TintLegend(theme)
        self.tint_menu = TintMenu(tinting, self)
        self.tint_button = QToolButton()
        self.tint_button.setProperty("role", "tool")
        self.tint_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.tint_button.setMenu(self.tint_menu)
        self.tint_problem = ElidedLabel("muted", takes_room=True)
        self.expected = ElidedLabel("muted")
        self.expected.setText("How the other sides differ from side A will appear here.")
        self.expected.setToolTip(self.expected.text())
        # On one line, cut where it does not fit, while the window has no second one to give.
        self.notice = ElidedLabel("muted")
        self.notice.setAccessibleName("What should be known of these numbers")
        words = QVBoxLayout()
        words.setSpacing(GAP_TINY)
        words.addWidget(self.expected)
        for line in (*self.lines, self.notice):
            line.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            words.addWidget(line)
        row = QHBoxLayout(self)
        row.setContentsMargins(GAP, GAP_TINY, GAP, GAP_TINY)
        row.setSpacing(GAP_LARGE)
        row.addLayout(words, 1)
        row.addWidget(self.tint_button)
        row.addWidget(self.tint_problem)
        row.addWidget(self.legend)
        tinting.changed.connect(self._show_tint)
        self.refresh()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._show_tint()
        # WORKAROUND: a layout that is placing its parts takes no notice of one that becomes higher
        # meanwhile, and would leave it lying over the answers; it has to be asked again afterwards.
        self._settled.start(0)

    def refresh(self) -> None:
        """Show the runs as they are now, and under their numbers what should be known of them."""
        sides = self._sides
        self.expected.setVisible(not sides.runs)
        for side, line in enumerate(self.lines, start=1):
            is_shown = side < len(sides.runs)
            line.setVisible(is_shown)
            if is_shown:
                parts, name = difference_parts(sides, side), sides.runs[side].name
                whole, colon = f"{name} against {sides.runs[0].name}", ": " if parts else ""
                line.show_parts(parts, (whole + colon, name + colon))
                text = line.text()
                line.setAccessibleName(text)
                line.setToolTip(plain_tooltip(f"{text}\n\n{difference_meaning(sides, side)}"))
            else:
                line.show_parts(())
        drift = sides.drift
        notices = [*sides.notices, drift.headline] if drift.headline else sides.notices
        self.notice.setText("  ".join(notices))
        self.notice.setToolTip(plain_tooltip("\n".join((*notices, drift.details)).strip()))
        self.notice.setVisible(bool(notices))
        self._show_tint()

    @Slot()
    def _show_tint(self) -> None:
        tint = self._tinting.current
        obstacle = self._tinting.obstacle_of(tint)
        scale = tint.scale(self._sides.runs[0]) if self._sides.runs else None
        if (shown := (tint, obstacle, scale)) != self._shown:
            self._shown = shown
            title = ", ".join(part for part in (tint.title.replace("&", ""), tint.unit) if part)
            self.tint_button.setText(f"Tint: {title} \N{BLACK DOWN-POINTING SMALL TRIANGLE}")
            self.tint_button.setAccessibleName(f"Tint of tokens: {title}")
            meaning = tint.meaning if obstacle is None else obstacle.sentence
            self.tint_button.setToolTip(
                plain_tooltip(f"What the background of a token says.\n{meaning}")
            )
            self.tint_problem.setText("" if obstacle is None else _problem_words(obstacle))
            self.tint_problem.setToolTip(plain_tooltip(meaning))
            if scale is not None:
                self.legend.show_tint(tint, scale)
        letters = self.width() / self.fontMetrics().averageCharWidth()
        self.tint_button.setVisible(letters > _CHOICE_LETTERS)
        self.tint_problem.setVisible(obstacle is not None)
        # Charts have a legend too; the words need the room more. Before a run some tints have no
        # scale.
        is_shown = self.legend.tint is tint and obstacle is None
        self.legend.setVisible(is_shown and letters > _LEGEND_LETTERS)


def _problem_words(obstacle: Obstacle) -> str:
    return f"No tint{' yet' if obstacle.passes else ''}: {obstacle.words}"
