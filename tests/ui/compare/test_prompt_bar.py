"""The prompt editor: as high as its text asks for, whatever is typed and however wide it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtWidgets import QApplication, QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from bh_studio.ui.compare.prompt_bar import PromptBar
from bh_studio.ui.widgets.theme import Theme

# Of a line: what may be left over below the last one.
_ROOM = 0.2


@pytest.fixture
def bar(qtbot: QtBot, theme: Theme) -> Iterator[PromptBar]:
    """One in a window with room below it."""
    frame = QWidget()
    qtbot.addWidget(frame)
    bar = PromptBar(theme)
    layout = QVBoxLayout(frame)
    layout.addWidget(bar)
    layout.addStretch(1)
    frame.resize(900, 600)
    frame.show()
    QApplication.processEvents()
    yield bar
    frame.hide()


def lines_shown(bar: PromptBar) -> float:
    editor = bar.editor
    margin = 2 * editor.document().documentMargin()
    return (editor.viewport().height() - margin) / editor.fontMetrics().lineSpacing()


def test_typing_the_first_letters_leaves_two_lines(bar: PromptBar, qtbot: QtBot) -> None:
    qtbot.keyClicks(bar.editor, "The old fisherman")
    assert bar.prompt == "The old fisherman"
    assert lines_shown(bar) == pytest.approx(2, abs=_ROOM)


@pytest.mark.parametrize(("lines", "shown"), [(1, 2), (3, 3), (6, 6), (7, 6), (400, 6)])
def test_it_is_as_high_as_its_text_within_limits(bar: PromptBar, lines: int, shown: int) -> None:
    bar.set_prompt("\n".join(["a line"] * lines))
    assert lines_shown(bar) == pytest.approx(shown, abs=_ROOM)
    bar.set_prompt("")
    assert lines_shown(bar) == pytest.approx(2, abs=_ROOM)


def test_a_narrower_window_gives_a_broken_line_room(bar: PromptBar) -> None:
    bar.set_prompt("word " * 24)
    assert lines_shown(bar) == pytest.approx(2, abs=_ROOM)
    heights = []
    for width in (500, 900):
        bar.window().resize(width, 600)
        QApplication.processEvents()
        heights.append(lines_shown(bar))
    assert heights[0] > 2
    assert heights[1] == pytest.approx(2, abs=_ROOM)


@pytest.mark.parametrize("percent", [100, 150, 220])
def test_larger_text_makes_it_higher(bar: PromptBar, theme: Theme, percent: int) -> None:
    bar.set_prompt("one\ntwo\nthree\nfour")
    theme.set_text_percent(percent)
    QApplication.processEvents()
    assert lines_shown(bar) == pytest.approx(4, abs=_ROOM)


def test_the_next_key_is_typed_into_the_prompt_once_run_rests(bar: PromptBar, qtbot: QtBot) -> None:
    bar.activateWindow()
    bar.run_button.setFocus()
    qtbot.waitUntil(bar.run_button.hasFocus)
    bar.show_obstacle("A run is under way.")
    assert bar.editor.hasFocus()
    assert not bar.run_button.isEnabled()
