"""Controls that are narrower than their words say so with dots, and look as ever where they fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QComboBox, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from bh_studio.ui.widgets.elided_controls import ElidedButton, ElidedComboBox
from bh_studio.ui.widgets.theme import Theme

WORDS = "Differs from A at 12345"


def button(kind: type[QPushButton], text: str) -> QWidget:
    result = kind()
    result.setText(text)
    result.setProperty("role", "link")
    return result


def choice(kind: type[QComboBox], text: str) -> QWidget:
    result = kind()
    result.addItem(text)
    return result


@pytest.mark.parametrize("width", [90, 400])
@pytest.mark.parametrize(
    ("make", "elided", "plain"),
    [(button, ElidedButton, QPushButton), (choice, ElidedComboBox, QComboBox)],
    ids=["button", "choice"],
)
def test_words_are_cut_with_dots(
    make: Callable[[type[QWidget], str], QWidget],
    elided: type[QWidget],
    plain: type[QWidget],
    width: int,
    qtbot: QtBot,
    theme: Theme,
) -> None:
    def picture(kind: type[QWidget], text: str) -> QImage:
        control = make(kind, text)
        qtbot.addWidget(control)
        control.setFixedSize(width, 30)
        control.show()
        return control.grab().toImage()

    seen = picture(elided, WORDS)
    texts = [WORDS, *(f"{WORDS[:letters]}…" for letters in range(3, len(WORDS)))]
    same = [text for text in texts if picture(plain, text) == seen]
    assert len(same) == 1
    assert same[0].endswith("…") is (width == 90)


def test_a_button_can_be_cut_in_the_middle(qtbot: QtBot, theme: Theme) -> None:
    def picture(text: str) -> QImage:
        control = ElidedButton()
        control.setText(text)
        control.elide_mode = Qt.TextElideMode.ElideMiddle
        qtbot.addWidget(control)
        control.setFixedSize(110, 30)
        control.show()
        return control.grab().toImage()

    # The end stands there as far as there is room for it, and so does the number.
    assert picture(WORDS) != picture(WORDS[:-1] + "6")


def test_an_elided_button_is_wide_where_there_is_room(qtbot: QtBot, theme: Theme) -> None:
    control = ElidedButton()
    qtbot.addWidget(control)
    control.setText(WORDS)
    words = control.fontMetrics().horizontalAdvance(WORDS)
    assert control.minimumSizeHint().width() < words / 2
    assert control.sizeHint().width() >= words
