"""Which token is inspected, in which side: to go to another one, or to close the panel."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.rules.sides import MOST_SIDES, side_letter
from bh_studio.ui.inspector.token_words import mean_experts, parting_words, token_title
from bh_studio.ui.state.inspection.inspection_model import InspectionModel
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.selection import Selection
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.form_rows import describe
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.theme import GAP_SMALL, GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip


class TokenHeader(QWidget):
    """Names what is selected, and selects another token or side.

    closed: a person wants the panel closed.
    """

    closed = Signal()

    def __init__(
        self,
        inspection: InspectionModel,
        sides: RunSides,
        selection: Selection,
        theme: Theme,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._inspection = inspection
        self._sides = sides
        self._selection = selection
        self._theme = theme
        self.title = ElidedLabel("section")
        self.title.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.identity = QLabel()
        self.identity.setProperty("role", "muted")
        self.identity.setToolTip("Its number in the vocabulary")
        self.previous = _tool("Previous token", Qt.ArrowType.LeftArrow)
        self.next = _tool("Next token", Qt.ArrowType.RightArrow)
        self.close_button = _tool("Close the inspector", Qt.ArrowType.NoArrow)
        self.side_buttons = tuple(QToolButton() for _ in range(MOST_SIDES))
        self.parting = QLabel()
        self.parting.setProperty("role", "muted")
        self.parting.setWordWrap(True)
        self._build_layout()
        self.previous.clicked.connect(self.go_back)
        self.next.clicked.connect(self.go_on)
        self.close_button.clicked.connect(self.closed)
        theme.changed.connect(self._take_theme)
        self._take_theme()

    def _build_layout(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(GAP_TINY)
        top.addWidget(self.title, 1)
        top.addWidget(self.identity)
        top.addSpacing(GAP_SMALL)
        for button in (self.previous, self.next, self.close_button):
            top.addWidget(button)
        sides = QHBoxLayout()
        sides.setSpacing(GAP_TINY)
        group = QButtonGroup(self)
        for side, button in enumerate(self.side_buttons):
            name = f"Side {side_letter(side)} at this token"
            describe(button, name, "Look at this side at the same token")
            button.setCheckable(True)
            button.setProperty("role", "tool")
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            group.addButton(button, side)
            sides.addWidget(button, 1)
        group.idClicked.connect(self._take_side)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_TINY)
        layout.addLayout(top)
        layout.addLayout(sides)
        layout.addWidget(self.parting)

    def refresh(self) -> None:
        """Show what is selected now."""
        place, sides = self._selection.place, self._sides
        if place is None or place.side >= len(sides.runs):
            self.title.setText("Token inspector")
            self.identity.setText("")
            self.parting.hide()
            for control in (self.previous, self.next):
                control.setEnabled(False)
            for button in self.side_buttons:
                button.hide()
            return
        run, token = sides.runs[place.side], place.token
        title = token_title(run, token, self._inspection.texts())
        self.title.setText(title)
        self.title.setToolTip(plain_tooltip(title))
        is_said = 0 <= token < run.token_count
        self.identity.setText(f"id {run.token_ids[token]}" if is_said else "")
        self.previous.setEnabled(token > -len(run.prompt_counts))
        self.next.setEnabled(token < run.token_count - 1)
        for side, button in enumerate(self.side_buttons):
            button.setVisible(side < len(sides.runs))
            if side < len(sides.runs):
                mean = mean_experts(sides.runs[side], token)
                name = sides.runs[side].name
                said = "none here" if mean is None else f"{mean:.2f}"
                button.setText(f"{name}  {said}")
                button.setChecked(side == place.side)
                button.setAccessibleName(f"Side {name}: {said}, mean experts at this token")
                button.setToolTip(f"Mean experts of side {name} at this token: {said}")
        words = parting_words(sides, token)
        self.parting.setText(words)
        self.parting.setVisible(bool(words))

    @Slot()
    def go_back(self) -> None:
        """Select the token before."""
        self._walk(-1)

    @Slot()
    def go_on(self) -> None:
        """Select the token behind."""
        self._walk(1)

    def _walk(self, step: int) -> None:
        place = self._selection.place
        if place is None or place.side >= len(self._sides.runs):
            return
        run = self._sides.runs[place.side]
        token = max(place.token + step, -len(run.prompt_counts))
        self._selection.select(place.side, min(token, run.token_count - 1))

    @Slot(int)
    def _take_side(self, side: int) -> None:
        place = self._selection.place
        if place is not None:
            self._selection.select(side, place.token)

    @Slot()
    def _take_theme(self) -> None:
        self.close_button.setIcon(icon("dismiss", self._theme.colors.text))


def _tool(name: str, arrow: Qt.ArrowType) -> QToolButton:
    button = QToolButton()
    button.setProperty("role", "tool")
    button.setArrowType(arrow)
    button.setToolTip(name)
    button.setAccessibleName(name)
    return button
