"""Controls whose words are cut with “…” where they do not fit; the tooltip has to hold them."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import (
    QComboBox,
    QPushButton,
    QSizePolicy,
    QStyle,
    QStyleOptionButton,
    QStyleOptionComboBox,
    QStylePainter,
    QWidget,
)

from bh_studio.ui.widgets.elided_label import cut
from bh_studio.ui.widgets.theme import GAP_TINY

_LEAST_LETTERS = 4


class ElidedButton(QPushButton):
    """A button that can be narrower than its text. briefs: ever shorter forms of that, to be shown
    as a whole before anything is cut."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.briefs: tuple[str, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def minimumSizeHint(self) -> QSize:
        hint = super().minimumSizeHint()
        least = self.fontMetrics().averageCharWidth() * _LEAST_LETTERS
        return QSize(min(hint.width(), least), hint.height())

    def paintEvent(self, _event: object) -> None:
        painter = QStylePainter(self)
        option = QStyleOptionButton()
        self.initStyleOption(option)
        # What the style sheet puts around the text.
        around = self.sizeHint().width() - self.fontMetrics().horizontalAdvance(self.text())
        option.text = self.fitted(max(0, self.width() - around))
        painter.drawControl(QStyle.ControlElement.CE_PushButton, option)

    def fitted(self, width: int) -> str:
        """What of its text is painted on so many pixels."""
        metrics, forms = self.fontMetrics(), (self.text(), *self.briefs)
        whole = (form for form in forms if metrics.horizontalAdvance(form) <= width)
        return next(whole, None) or cut(forms[-1], metrics, width)


class ElidedComboBox(QComboBox):
    """A choice that can be narrower than what is chosen."""

    def paintEvent(self, _event: object) -> None:
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        style, part = self.style(), QStyle.SubControl.SC_ComboBoxEditField
        field = style.subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, self)
        option.currentText = self.fontMetrics().elidedText(
            option.currentText, Qt.TextElideMode.ElideRight, field.width() - GAP_TINY
        )
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
