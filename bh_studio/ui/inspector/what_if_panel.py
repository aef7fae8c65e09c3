"""What another level would change, and two buttons that let it be run. Knows no rule by name."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QSignalBlocker, Signal, Slot
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from bh_studio.engine.rules import RuleEntry
from bh_studio.engine.rules.sides import MOST_SIDES, side_letter
from bh_studio.ui.inspector.level_slider import LevelSlider
from bh_studio.ui.inspector.token_words import KEPT_NOTE, level_obstacle, what_if_words
from bh_studio.ui.state.inspection.inspection_model import InspectionModel
from bh_studio.ui.state.inspection.level_scale import LevelScale
from bh_studio.ui.state.selection import Place
from bh_studio.ui.widgets.form_rows import describe, section
from bh_studio.ui.widgets.number_boxes import LevelBox
from bh_studio.ui.widgets.theme import GAP_SMALL, GAP_TINY, Theme

_ADDING = "Add a side with this level to the next run"


class WhatIfPanel(QWidget):
    """A slider with a box for the level of the side's rule.

    use_rule: with the side and its rule at the tried level, to be run there. add_rule: with that
    rule, to be run as one more side.
    """

    use_rule = Signal(int, object)
    add_rule = Signal(object)

    def __init__(
        self, inspection: InspectionModel, theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._inspection = inspection
        self._side = 0
        self._sides = 2
        self._entry: RuleEntry | None = None
        self._scale: LevelScale | None = None
        self.caption = section("")
        self.box = LevelBox()
        self.slider = LevelSlider(theme)
        self.change = QLabel()
        self.change.setWordWrap(True)
        self.change.setAccessibleName("What this level changes")
        self.sentence = QLabel()
        self.sentence.setProperty("role", "muted")
        self.sentence.setWordWrap(True)
        self.use_button = QPushButton("Use on this side")
        self.add_button = QPushButton("As a new side")
        for control in (self.box, self.slider):
            describe(control, "The level to try", "The level to try on what was recorded")
        describe(self.use_button, "Use on this side", "Give the side this level in the next run")
        describe(self.add_button, "As a new side", _ADDING)
        self._build_layout()
        self.slider.moved.connect(inspection.try_level)
        self.box.valueChanged.connect(self._take_box)
        self.use_button.clicked.connect(self._use)
        self.add_button.clicked.connect(self._add)

    def _build_layout(self) -> None:
        level = QHBoxLayout()
        level.setSpacing(GAP_SMALL)
        level.addWidget(self.caption)
        level.addWidget(self.box, 1)
        buttons = QHBoxLayout()
        buttons.setSpacing(GAP_SMALL)
        buttons.addWidget(self.use_button)
        buttons.addWidget(self.add_button)
        buttons.addStretch(1)
        self._controls = QWidget()
        rows = QVBoxLayout(self._controls)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(GAP_TINY)
        rows.addLayout(level)
        rows.addWidget(self.slider)
        rows.addWidget(self.change)
        rows.addLayout(buttons)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_TINY)
        layout.addWidget(self._controls)
        layout.addWidget(self.sentence)

    def show_sides(self, sides: int) -> None:
        """Take how many sides the next run has."""
        self._sides = sides
        self.add_button.setToolTip(
            _ADDING
            if sides < MOST_SIDES
            else f"The next run has {MOST_SIDES} sides already; remove one first."
        )
        self._sync_buttons()

    def refresh(self, place: Place) -> None:
        """Show what is tried on the side of `place`."""
        inspection = self._inspection
        run, token, rule = inspection.run, inspection.token, inspection.rule
        self.setVisible(run is not None and token is not None)
        if run is None or token is None:
            return
        self._side = place.side
        obstacle = level_obstacle(run)
        self._controls.setVisible(not obstacle)
        if obstacle or rule is None:
            self.sentence.setText(obstacle)
            return
        scores = np.stack([layer.scores for layer in token.layers])
        self._scale = LevelScale.of(rule, scores)
        self._show_level(rule.entry, self._scale)
        self.change.setText(what_if_words(inspection))
        self.sentence.setText(inspection.what_if_problem or KEPT_NOTE)
        self._sync_buttons()

    def _show_level(self, entry: RuleEntry, scale: LevelScale) -> None:
        level = scale.stored if self._inspection.level is None else self._inspection.level
        with QSignalBlocker(self.box):
            if entry is not self._entry:
                self._entry = entry
                self.box.set_entry(entry)
                self.caption.setText(f"What if {entry.symbol} were")
                self.box.setAccessibleName(f"{entry.symbol} to try")
                self.slider.setAccessibleName(f"{entry.symbol} to try")
            if entry.level_is_count:
                self.box.setMaximum(scale.high)
            # What is being typed stays as it is typed.
            if self.box.value() != round(level, self.box.decimals()):
                self.box.setValue(level)
        self.slider.show_level(scale, level)
        stored = f"{entry.symbol} {scale.stored:g}, as it was run, is marked."
        self.slider.setToolTip(stored)
        self.box.setToolTip(f"{entry.symbol} {entry.levels.words}. {stored}")

    @Slot()
    def _take_box(self) -> None:
        if self._scale is None:
            return
        # A level with more digits than the box has is that level still.
        stored, level = self._scale.stored, self.box.value()
        is_stored = level == round(stored, self.box.decimals())
        self._inspection.try_level(stored if is_stored else level)

    @Slot()
    def _use(self) -> None:
        self.use_rule.emit(self._side, self._inspection.tried_rule)

    @Slot()
    def _add(self) -> None:
        self.add_rule.emit(self._inspection.tried_rule)

    def _sync_buttons(self) -> None:
        rule = self._inspection.tried_rule
        side = side_letter(self._side)
        level = self.box.text() if rule is None else f"{rule.level:g}"
        self.use_button.setText(f"Use {level} on side {side}")
        self.use_button.setAccessibleName(self.use_button.text())
        has_side = self._side < self._sides
        self.use_button.setToolTip(
            f"Give side {side} this level in the next run"
            if has_side
            else f"The next run has no side {side}; add one."
        )
        self.use_button.setEnabled(rule is not None and has_side)
        self.add_button.setEnabled(rule is not None and self._sides < MOST_SIDES)
