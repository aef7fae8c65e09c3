"""Which sides the next run has: one row a side, of which one is looked at. Holds no control of a
rule."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtWidgets import (
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.rules import RuleParameters, format_rule, parse_rule
from bh_studio.engine.rules.catalogue import CATALOGUE
from bh_studio.engine.rules.sides import MOST_SIDES, Sides, side_letter
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip


class SideList(QWidget):
    """Holds the rules of one to four sides, None for the model's own routing.

    chosen: another side is looked at. changed: there are other sides.
    """

    chosen = Signal()
    changed = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._sides: list[RuleParameters | None] = [None, RuleParameters()]
        self._current = 1
        self.rows = tuple(_Row(side) for side in range(MOST_SIDES))
        self.add_button = QPushButton("+ Add a side")
        self.add_button.setProperty("role", "link")
        self.add_button.setAccessibleName("Add a side")
        self.add_button.setToolTip("Compare with one more rule; up to four sides take turns")
        self.add_button.clicked.connect(self.add)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_TINY)
        for row in self.rows:
            layout.addWidget(row)
            row.button.clicked.connect(self._take_click)
            row.remove.clicked.connect(self._take_removal)
        layout.addWidget(self.add_button, 0, Qt.AlignmentFlag.AlignLeft)
        theme.changed.connect(self._take_theme)
        self._take_theme()
        self._sync()

    @property
    def sides(self) -> tuple[RuleParameters | None, ...]:
        """The rule of each side."""
        return tuple(self._sides)

    @property
    def current(self) -> int:
        """The side that is looked at."""
        return self._current

    @property
    def rule(self) -> RuleParameters | None:
        """The rule of that side."""
        return self._sides[self._current]

    def set_rule(self, rule: RuleParameters | None) -> None:
        """Give the side that is looked at another rule."""
        self._sides[self._current] = rule
        self._sync()

    def give(self, side: int, rule: RuleParameters | None) -> None:
        """Give `side` another rule and look at it, if there is such a side."""
        if side < len(self._sides):
            self._sides[side] = rule
            self.choose(side)

    def show_sides(self, sides: Sides) -> None:
        """Take these sides; the last but for the model's own is looked at."""
        self._sides = list(sides)
        self._current = len(sides) - 1
        self._sync()
        self.chosen.emit()
        self.changed.emit()

    def choose(self, side: int) -> None:
        """Look at `side`, if there is one."""
        if side < len(self._sides):
            self._current = side
            self._sync()
            self.chosen.emit()

    @Slot()
    def add(self) -> None:
        """Add a side with a rule that none has yet, and look at it."""
        if len(self._sides) < MOST_SIDES:
            self.append(next(rule for rule in _offered() if rule not in self._sides))

    def append(self, rule: RuleParameters | None) -> None:
        """Add a side with `rule`, if there is room, and look at it."""
        if len(self._sides) < MOST_SIDES:
            self.show_sides([*self._sides, rule])

    def remove(self, side: int) -> None:
        """Take `side` away, unless it is the only one."""
        if len(self._sides) > 1 and side < len(self._sides):
            del self._sides[side]
            self._current = min(self._current, len(self._sides) - 1)
            self._sync()
            self.chosen.emit()
            self.changed.emit()

    @Slot()
    def remove_current(self) -> None:
        """Take the side away that is looked at, unless it is the only one."""
        self.remove(self._current)

    @Slot()
    def _take_click(self) -> None:
        self.choose(next(side for side, row in enumerate(self.rows) if row.button is self.sender()))

    @Slot()
    def _take_removal(self) -> None:
        self.remove(next(side for side, row in enumerate(self.rows) if row.remove is self.sender()))

    @Slot()
    def _sync(self) -> None:
        count = len(self._sides)
        for side, row in enumerate(self.rows):
            row.setVisible(side < count)
            if side < count:
                row.show_rule(self._sides[side], side == self._current, count > 1)
        self.add_button.setVisible(count < MOST_SIDES)

    @Slot()
    def _take_theme(self) -> None:
        for row in self.rows:
            row.remove.setIcon(icon("dismiss", self._theme.colors.muted, self._theme.colors.faint))


class _Row(QWidget):
    """A side: what it is called, which chooses it, and a button that takes it away."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self._letter = side_letter(side)
        self.button = QPushButton()
        self.button.setProperty("role", "side")
        self.button.setCheckable(True)
        self.button.setAccessibleName(f"Side {self._letter}")
        self.button.setToolTip(f"Side {self._letter}, which is not there")
        self.button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.remove = QToolButton()
        self.remove.setProperty("role", "tool")
        self.remove.setToolTip(f"Remove side {self._letter}")
        self.remove.setAccessibleName(f"Remove side {self._letter}")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_TINY)
        layout.addWidget(self.button, 1)
        layout.addWidget(self.remove)

    def show_rule(self, rule: RuleParameters | None, is_current: bool, can_remove: bool) -> None:
        words = "Model's own" if rule is None else format_rule(rule)
        self.button.setText(f"{self._letter}   {words}")
        self.button.setChecked(is_current)
        self.button.setToolTip(plain_tooltip(words))
        self.button.setAccessibleName(f"Side {self._letter}: {words}")
        self.remove.setEnabled(can_remove)


def _offered() -> list[RuleParameters | None]:
    """What a new side may begin with: of each rule its example, the usual one first."""
    return [RuleParameters(), None, *(parse_rule(e.example_text) for e in CATALOGUE.values())]
