"""A box gives every character back: as it was set, pasted, edited, undone and copied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QMimeData, Qt
from PySide6.QtGui import QGuiApplication, QTextCursor
from pytestqt.qtbot import QtBot

from bh_studio.ui.widgets.copied_text import release_copied_text
from bh_studio.ui.widgets.exact_text_edit import ExactTextEdit

_ODD = "\r\n\u00a0\u2028\u2029\r\ufdd0\ufdd1\ufeff\ufffc\0\t\udc80␍␤\ufffd🦉"
_TEXTS = [
    "10\u00a0km", "one\r\ntwo\r\n", "\r\r", "a\u2028b\u2029c", "\n\n", "\ufdd0\ufdd1", "a\udcffb",
    "\ufeffa", "\ufffea",    "␍␤\ufffd", "\r␍\u2029␤\ufdd0\ufffd", "🦉\r🦉", _ODD,
]  # fmt: skip

# No clipboard holds halves of surrogate pairs, and Qt's takes marks of byte order away.
_CLEAN = [text for text in _TEXTS if not set(text) & set("\udcff\udc80\ufeff\ufffe")]


@pytest.fixture
def box(qtbot: QtBot) -> ExactTextEdit:
    box = ExactTextEdit()
    qtbot.addWidget(box)
    return box


def _paste(box: ExactTextEdit, text: str) -> None:
    data = QMimeData()
    data.setText(text)
    box.insertFromMimeData(data)


@pytest.mark.parametrize("text", _TEXTS)
def test_what_was_set_is_read(text: str, box: ExactTextEdit) -> None:
    box.set_text(text)
    assert box.text == text
    box.set_text("other")
    box.undo()
    assert box.text == text
    box.redo()
    assert box.text == "other"


def test_every_character_of_the_first_plane_is_read_as_it_was_set(box: ExactTextEdit) -> None:
    for first in range(0, 0x10000, 0x400):
        text = " ".join(chr(code) for code in range(first, first + 0x400))
        box.set_text(text)
        assert box.text == text


@given(text=st.text(st.sampled_from(_ODD + "ab \n"), max_size=12))
def test_any_mixture_is_read_as_it_was_set(text: str, qapp: object) -> None:
    box = ExactTextEdit()
    box.set_text(text)
    assert box.text == text
    box.deleteLater()


@pytest.mark.parametrize("text", _CLEAN)
def test_what_was_pasted_is_read_and_copied(text: str, box: ExactTextEdit) -> None:
    box.set_text("ac")
    cursor = box.textCursor()
    cursor.setPosition(1)
    box.setTextCursor(cursor)
    _paste(box, text)
    assert box.text == f"a{text}c"
    box.selectAll()
    box.copy()
    assert QGuiApplication.clipboard().text() == f"a{text}c"
    release_copied_text()
    assert QGuiApplication.clipboard().text() == f"a{text}c"
    box.undo()
    assert box.text == "ac"


@pytest.mark.parametrize("place", [1, 2])
def test_typing_beside_a_stand_in_does_not_become_one(
    place: int, box: ExactTextEdit, qtbot: QtBot
) -> None:
    box.set_text("a\rb")
    cursor = box.textCursor()
    cursor.setPosition(place)
    box.setTextCursor(cursor)
    qtbot.keyClicks(box, "x")
    _paste(box, "␍")
    assert box.text == ("ax␍\rb" if place == 1 else "a\rx␍b")
    cursor.setPosition(place)
    cursor.insertText("␍")
    assert box.text == ("a␍x␍\rb" if place == 1 else "a\r␍x␍b")


def test_an_edited_box_keeps_what_was_not_edited(box: ExactTextEdit, qtbot: QtBot) -> None:
    box.set_text("10\u00a0km\r\nto\u2028go")
    box.moveCursor(QTextCursor.MoveOperation.End)
    qtbot.keyClicks(box, "!")
    assert box.text == "10\u00a0km\r\nto\u2028go!"
    box.moveCursor(QTextCursor.MoveOperation.Start)
    qtbot.keyClick(box, Qt.Key.Key_Delete)
    assert box.text == "0\u00a0km\r\nto\u2028go!"


@pytest.mark.parametrize(
    "modifier", [Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier]
)
def test_return_is_a_line_feed(
    modifier: Qt.KeyboardModifier, box: ExactTextEdit, qtbot: QtBot
) -> None:
    box.set_text("a")
    box.moveCursor(QTextCursor.MoveOperation.End)
    qtbot.keyClick(box, Qt.Key.Key_Return, modifier)
    assert box.text == "a\n"


def test_a_selection_is_replaced_in_one_step(box: ExactTextEdit) -> None:
    box.set_text("one\r\ntwo")
    box.selectAll()
    _paste(box, "\r")
    assert box.text == "\r"
    box.undo()
    assert box.text == "one\r\ntwo"


def test_whoever_hears_of_a_change_finds_the_new_text(box: ExactTextEdit) -> None:
    heard: list[str] = []
    box.textChanged.connect(lambda: heard.append(box.text))
    box.set_text("a\rb")
    assert heard == ["a\rb"]
