"""The answers of all sides beside each other: up to three in a row, four in two rows of two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QSplitter, QVBoxLayout, QWidget

from bh_studio.ui.compare.answer_panel import AnswerPanel
from bh_studio.ui.compare.find_bar import FindBar
from bh_studio.ui.compare.finding import Finding
from bh_studio.ui.state.reading.token_words import token_words
from bh_studio.ui.state.run_sides import Parting, RunSides
from bh_studio.ui.state.tints.tinting import Tinting
from bh_studio.ui.widgets.theme import GAP_SMALL, Theme

_FIRST_SIDES = 2


class Answers(QWidget):
    """A panel for each side that there can be, of which as many are shown as the run has.

    splitter: between the panels of the upper row. find_bar: below them, where it is wanted.
    scrolls_together: whether scrolling one answer by hand scrolls the others to the same token.
    """

    def __init__(
        self, sides: RunSides, tinting: Tinting, theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._sides = sides
        self.panels = tuple(AnswerPanel(run, tinting, theme) for run in sides.all_runs)
        for panel in self.panels:
            panel.text.more = partial(token_words, sides)
        self.splitter = new_splitter(Qt.Orientation.Horizontal)
        self._lower = new_splitter(Qt.Orientation.Horizontal)
        self._rows = new_splitter(Qt.Orientation.Vertical)
        self._rows.addWidget(self.splitter)
        self._rows.addWidget(self._lower)
        self.find_bar = FindBar(theme)
        self._finding = Finding(self.find_bar, self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_SMALL)
        layout.addWidget(self._rows, 1)
        layout.addWidget(self.find_bar)
        self.scrolls_together = True
        for panel in self.panels:
            panel.text.scrolled.connect(partial(self._scroll_others, panel))
        self._shown = 0
        self._expected = _FIRST_SIDES
        self._show(_FIRST_SIDES)

    @property
    def shown(self) -> tuple[AnswerPanel, ...]:
        """The panels on screen."""
        return self.panels[: self._shown]

    def expect(self, sides: int, *, is_same_text: bool) -> None:
        """Say what will stand here while nothing does: of how many sides, and whether they are to
        read a text."""
        self._expected = sides
        for panel in self.panels:
            panel.expect(is_same_text=is_same_text)
        if not self._sides.runs:
            self._show(sides)

    def focus_side(self, side: int) -> None:
        """Let keys go to the text of `side`, if it is on screen."""
        if side < self._shown:
            self.panels[side].text.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def refresh(self) -> None:
        """Show the runs as they are now."""
        self.refresh_texts()
        self.refresh_numbers()

    def refresh_texts(self) -> None:
        """Show what the sides have said by now."""
        self._show(len(self._sides.runs) or self._expected)
        for panel in self.shown:
            panel.refresh_text()
        self._finding.refresh([panel.text for panel in self.shown])

    def refresh_numbers(self) -> None:
        """Show the numbers of what is on screen."""
        partings: Sequence[Parting | None] = self._sides.partings or [None] * self._shown
        for panel, parting in zip(self.shown, partings, strict=True):
            panel.refresh_numbers(parting)

    def show_start(self) -> None:
        """Show how all answers begin: what has been written already is read from there."""
        self.refresh()
        for panel in self.shown:
            panel.text.scroll_to_start()

    def show_token(self, token: int) -> None:
        """Mark the same token in all answers that have it, where it can be seen."""
        for panel in self.shown:
            panel.text.reveal_token(token)

    def mark_token(self, token: int) -> None:
        """Mark the same token in all answers that have come to it; what is read stays in sight."""
        for panel in self.shown:
            panel.text.mark_token(token)

    def _scroll_others(self, scrolled: AnswerPanel, top: int) -> None:
        if self.scrolls_together:
            for panel in self.shown:
                if panel is not scrolled and not panel.keeps_to_end:
                    panel.text.bring_to_top(top)

    def _show(self, count: int) -> None:
        if count == self._shown:
            return
        self._shown = count
        in_upper = count if count <= 3 else 2
        for number, panel in enumerate(self.panels):
            row = self.splitter if number < in_upper else self._lower
            row.addWidget(panel)
            panel.setVisible(number < count)
        self._lower.setVisible(count > in_upper)
        self.share_equally()

    def share_equally(self) -> None:
        """Give all panels the same room."""
        for row in (self.splitter, self._lower, self._rows):
            row.setSizes([1000] * row.count())


def new_splitter(orientation: Qt.Orientation, *widgets: QWidget) -> QSplitter:
    """A splitter whose parts begin with equal shares and cannot be folded away by accident."""
    splitter = QSplitter(orientation)
    splitter.setChildrenCollapsible(False)
    splitter.setHandleWidth(GAP_SMALL)
    for widget in widgets:
        splitter.addWidget(widget)
        splitter.setStretchFactor(splitter.count() - 1, 1)
    # Equal shares; Qt scales them to the room there is.
    splitter.setSizes([1000] * splitter.count())
    return splitter
