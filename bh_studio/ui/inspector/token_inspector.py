"""The panel that shows what the router and a rule did for the selected token."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, QTimer, Signal, Slot
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.records.decisions.token_inspection import InspectedToken
from bh_studio.ui.inspector.choice_table import ChoiceTable, candidates_at
from bh_studio.ui.inspector.criterion_figure import CriterionFigure
from bh_studio.ui.inspector.expert_table import ExpertTable, taken_experts
from bh_studio.ui.inspector.rank_strip import RankStrip
from bh_studio.ui.inspector.rows_view import RowsView
from bh_studio.ui.inspector.token_header import TokenHeader
from bh_studio.ui.inspector.token_words import mismatch_words
from bh_studio.ui.inspector.what_if_panel import WhatIfPanel
from bh_studio.ui.state.frame_clock import FrameClock
from bh_studio.ui.state.inspection.inspection_model import InspectionModel
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.selection import Place, Selection
from bh_studio.ui.widgets.form_rows import describe, section
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, GAP_TINY, Theme

HINT = "Click a token of an answer, or press Enter on one."
_WAITING = "Computing what was decided here…"
_WIDTH_LETTERS = 54
_PATIENCE_MS = 100


class TokenInspector(QFrame):
    """Shows the place that is selected; asks for nothing while it is hidden.

    closed: a person wants it closed. use_rule, add_rule: as WhatIfPanel has them.
    """

    closed = Signal()
    use_rule = Signal(int, object)
    add_rule = Signal(object)

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
        self._tabled: tuple[object, ...] = ()
        self._chosen: tuple[object, ...] = ()
        # Where a person was in what is found, for when there is something found again.
        self._left_at = 0
        self._left: QWidget | None = None
        # Of its own: a token that was just clicked waits for no frame of the charts.
        self.clock = FrameClock(self)
        # What stands there stays for the moment that an answer takes, so that nothing flickers.
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(_PATIENCE_MS)
        self._patience.timeout.connect(self._show_parts)
        self.setProperty("role", "card")
        self.setAccessibleName("Token inspector")
        self.header = TokenHeader(inspection, sides, selection, theme)
        self.strip = RankStrip(theme)
        self.figure = CriterionFigure(theme)
        self.what_if = WhatIfPanel(inspection, theme)
        self.experts = ExpertTable(self)
        self.expert_view = RowsView(self.experts, "Experts of the layer", has_numbers=True)
        self.choices = ChoiceTable(self)
        self.choice_view = RowsView(self.choices, "What else each side could have said")
        self.copy_button = QPushButton("Copy table")
        describe(
            self.copy_button,
            "Copy table",
            "Copy the experts of this layer, with tabs between columns",
        )
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setProperty("role", "muted")
        self._build_layout()
        self.header.closed.connect(self.closed)
        self.strip.layer_chosen.connect(self._choose_layer)
        self.figure.ranks_changed.connect(self.refresh)
        self.what_if.use_rule.connect(self.use_rule)
        self.what_if.add_rule.connect(self.add_rule)
        self.copy_button.clicked.connect(self.copy)
        selection.changed.connect(self._refresh_if_open)
        inspection.changed.connect(self.clock.mark)
        self.clock.frame.connect(self._refresh_if_open)
        theme.changed.connect(self._take_theme)
        self._take_theme()
        self.refresh()

    def _build_layout(self) -> None:
        self._choice_title = section("")
        experts_row = QHBoxLayout()
        experts_row.addWidget(section("Experts"), 1)
        experts_row.addWidget(self.copy_button)
        self._found = QWidget()
        found = QVBoxLayout(self._found)
        found.setContentsMargins(0, 0, 0, 0)
        found.setSpacing(GAP_SMALL)
        for part in (self.strip, self.figure, self.what_if):
            found.addWidget(part)
        found.addLayout(experts_row)
        found.addWidget(self.expert_view)
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, GAP_TINY, 0)
        column.setSpacing(GAP_SMALL)
        column.addWidget(self.message)
        column.addWidget(self._found)
        column.addWidget(self._choice_title)
        column.addWidget(self.choice_view)
        column.addStretch(1)
        self._area = QScrollArea()
        self._area.setProperty("role", "sidebar")
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._area.setWidget(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP, GAP_SMALL, GAP_SMALL, GAP_SMALL)
        layout.setSpacing(GAP_SMALL)
        layout.addWidget(self.header)
        layout.addWidget(self._area, 1)

    def sizeHint(self) -> QSize:
        return QSize(self.fontMetrics().averageCharWidth() * _WIDTH_LETTERS, 400)

    @property
    def shown_token(self) -> InspectedToken | None:
        """What is drawn: what was done, or what another level would do."""
        found = self._inspection
        if found.token is None or found.level is None or found.what_if is None:
            return found.token
        return found.what_if if found.what_if.position == found.token.position else found.token

    @Slot()
    def refresh(self) -> None:
        """Show what is known now."""
        self.header.refresh()
        self._show_choices(self._selection.place)
        if not self._inspection.is_waiting:
            self._patience.stop()
            self._show_parts()
        elif not self._patience.isActive():
            self._patience.start()

    @Slot()
    def _show_parts(self) -> None:
        place, token = self._selection.place, self.shown_token
        was_found = not self._found.isHidden()
        if was_found and token is None:
            self._leave()
        self._found.setVisible(token is not None)
        self.message.setText(self._words(place, token))
        self.message.setVisible(bool(self.message.text()))
        layer = self._inspection.layer
        self.strip.show_token(token, layer)
        self.figure.show_layer(token, layer)
        if place is not None:
            self.what_if.refresh(place)
            self._show_experts(place, token, layer)
        if token is not None and not was_found:
            self._come_back()

    def _leave(self) -> None:
        self._left_at = self._area.verticalScrollBar().value()
        focused = self.window().focusWidget()
        if self._found.isAncestorOf(focused):
            # Qt would hand the keys on to whatever is next in the window.
            self._left = focused
            self._area.setFocus()

    def _come_back(self) -> None:
        bar = self._area.verticalScrollBar()
        # What is found is laid out later, and the range with it.
        bar.setMaximum(max(bar.maximum(), self._left_at))
        bar.setValue(self._left_at)
        if self._left is not None and self._area.hasFocus():
            self._left.setFocus()
        self._left = None

    @Slot()
    def _refresh_if_open(self) -> None:
        if not self.isHidden():
            self.refresh()

    @Slot()
    def copy(self) -> None:
        """Put the table on the clipboard."""
        QGuiApplication.clipboard().setText(self.experts.as_text())

    def _words(self, place: Place | None, token: InspectedToken | None) -> str:
        """What is to be said above everything else; empty if nothing is."""
        if place is None:
            return HINT
        if self._inspection.problem:
            return self._inspection.problem
        if self._inspection.is_waiting:
            return _WAITING
        run, stored = self._inspection.run, self._inspection.token
        if token is None or run is None or stored is None:
            return ""
        words = token.shortage or "", mismatch_words(run, place.token, stored)
        return "\n".join(filter(None, words))

    def _show_experts(self, place: Place, token: InspectedToken | None, layer: int) -> None:
        ranks = self.figure.ranks
        runs = self._sides.runs
        taken = [(run.name, taken_experts(run, place.token, layer)) for run in runs]
        known = tuple(
            (run.epoch, experts is not None) for run, (_, experts) in zip(runs, taken, strict=True)
        )
        shown = (token, layer, ranks, known)
        if shown == self._tabled:
            return
        self._tabled = shown
        self.experts.show_layer(None if token is None else token.layers[layer], ranks, taken)
        self.expert_view.fit(self.experts)

    def _show_choices(self, place: Place | None) -> None:
        runs = self._sides.runs
        token = 0 if place is None else place.token
        # Texts that are said later are taken at the end, not looked for with every frame.
        known = self._inspection.has_vocabulary
        shown = (
            place,
            known,
            *((run.epoch, run.token_count > token, run.is_running) for run in runs),
        )
        if shown == self._chosen:
            return
        self._chosen = shown
        candidates = []
        if place is not None:
            candidates = candidates_at(self._sides, token, self._inspection.texts())
        self.choices.show_candidates(candidates)
        is_given = self._sides.is_same_text
        self._choice_title.setText(
            "How probable it was" if is_given else "What else would it have said"
        )
        for part in (self._choice_title, self.choice_view):
            part.setVisible(bool(candidates))
        self.choice_view.fit(self.choices)

    @Slot(int)
    def _choose_layer(self, layer: int) -> None:
        place = self._selection.place
        if place is not None:
            self._selection.select(place.side, place.token, layer)

    @Slot()
    def _take_theme(self) -> None:
        self.experts.take_color(self._theme.colors.accent_soft)
        self.expert_view.fit(self.experts)
        self.choice_view.fit(self.choices)
        self.updateGeometry()
