"""Rows of a form: a control with its label, its name and what it means. No logic."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFormLayout, QLabel, QWidget

from bh_studio.ui.widgets.theme import GAP, GAP_SMALL


def new_form() -> QFormLayout:
    """An empty form with labels on the left."""
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setHorizontalSpacing(GAP)
    form.setVerticalSpacing(GAP_SMALL)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def section(text: str) -> QLabel:
    """The title above a form."""
    label = QLabel(text)
    label.setProperty("role", "section")
    return label


def label_for(control: QWidget, text: str) -> QLabel:
    """The label of `control`."""
    label = QLabel(text)
    label.setProperty("role", "muted")
    label.setBuddy(control)
    return label


def describe(control: QWidget, name: str, meaning: str) -> None:
    """Say what `control` is, to screen readers and on hovering."""
    control.setAccessibleName(name)
    control.setToolTip(meaning)


def add_row(
    form: QFormLayout, text: str, control: QWidget, meaning: str, name: str | None = None
) -> None:
    """Add `control` with the label `text`. name: for screen readers."""
    describe(control, name or text, meaning)
    label = label_for(control, text)
    label.setToolTip(meaning)
    form.addRow(label, control)
