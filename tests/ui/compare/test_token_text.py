"""The streaming view: what is appended, followed, marked, hovered and copied."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QTextCursor
from PySide6.QtWidgets import QAbstractSlider, QApplication, QToolTip
from pytestqt.qtbot import QtBot

from bh_studio.engine.records.terms import FinishReason
from bh_studio.ui.compare.token_text import TokenText
from bh_studio.ui.widgets.copied_text import release_copied_text
from bh_studio.ui.widgets.theme import DARK
from bh_studio.ui.widgets.visible_text import visible
from tests.ui.conftest import Desk

WORDS = [f" word{number}" for number in range(400)]


def view_of(desk: Desk) -> TokenText:
    return desk.second.text


def rect_of(view: TokenText, position: int) -> QPoint:
    """A point inside the character at `position`."""
    cursor = QTextCursor(view.document())
    cursor.setPosition(position)
    left = view.cursorRect(cursor)
    cursor.setPosition(position + 1)
    right = view.cursorRect(cursor)
    return QPoint((left.center().x() + right.center().x()) // 2, left.center().y())


def is_shown(view: TokenText, token: int) -> bool:
    """Whether the middle of a token is within the viewport."""
    position = view.toPlainText().index(WORDS[token]) + len(WORDS[token]) // 2
    return view.viewport().rect().contains(rect_of(view, position))


def test_the_answer_follows_the_prompt(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" upon", " a", " time"])
    view = view_of(desk)
    assert view.toPlainText() == "Once upon a time"
    assert view.token_count == 3


def test_only_new_text_is_inserted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.start("Once")
    desk.say(WORDS[:50])
    inserted: list[str] = []
    insert = QTextCursor.insertText

    def record(cursor: QTextCursor, text: str, *look: object) -> None:
        inserted.append(text)
        insert(cursor, text, *look)

    monkeypatch.setattr(QTextCursor, "insertText", record)
    desk.say([" more"])
    assert inserted == [" more", " more"]


PIECES = (
    "<b>bold</b>",
    "&lt;",
    "日本語",
    "👩‍🔬",
    "\0\x1b[31m\r",
    "\u202eabc",
    "a\r\nb",
    "\u2028",
    "\ud83d",
)


@pytest.mark.parametrize("piece", PIECES)
def test_any_text_is_shown_literally_and_copied_as_it_was(desk: Desk, piece: str) -> None:
    desk.start("Once")
    desk.say([" a", piece, " z"])
    view = view_of(desk)
    assert view.toPlainText() == visible(f"Once a{piece} z")
    view.selectAll()
    copied = view.createMimeDataFromSelection()
    units = f"Once a{piece} z".encode("utf-16-le", "surrogatepass")
    assert copied.text() == units.decode("utf-16-le", "replace")
    assert not copied.hasHtml()


def test_copying_puts_plain_text_on_the_clipboard(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" 👩‍🔬", " <i>x</i>"])
    view = view_of(desk)
    view.selectAll()
    view.copy()
    assert QApplication.clipboard().text() == "Once 👩‍🔬 <i>x</i>"


def test_what_is_copied_stays_as_it_was_generated_when_the_program_ends(desk: Desk) -> None:
    desk.start("Once 10\u00a0km")
    desk.say([" a\u00a0b", "\r\n", "\u2028\u2029", "z"])
    view = view_of(desk)
    view.selectAll()
    view.copy()
    release_copied_text()
    copied = QApplication.clipboard().text()
    assert copied == "Once 10\u00a0km a\u00a0b\r\n\u2028\u2029z"


def test_tokens_are_tinted_by_their_mean_count(desk: Desk) -> None:
    desk.start("Once")
    desk.engine.token(1, " few", 2)
    desk.engine.token(1, " many", 7)
    desk.page.clock.flush()
    view, scale = view_of(desk), desk.session.sides.all_runs[1].scale
    surface = desk.theme.colors.surface
    assert view.tint_of(0) == scale.tint(2, surface)
    assert view.tint_of(1) == scale.tint(7, surface)
    assert view.tint_of(0) != view.tint_of(1)


def test_the_end_is_followed_until_the_reader_scrolls(desk: Desk) -> None:
    desk.start("Once")
    desk.say(WORDS)
    view = view_of(desk)
    bar = view.verticalScrollBar()
    assert bar.maximum() > 0
    assert bar.value() == bar.maximum()
    following = [view.is_following]
    bar.triggerAction(QAbstractSlider.SliderAction.SliderPageStepSub)
    following.append(view.is_following)
    place = bar.value()
    desk.say(WORDS)
    assert bar.value() == place
    assert place < bar.maximum()
    bar.triggerAction(QAbstractSlider.SliderAction.SliderToMaximum)
    following.append(view.is_following)
    assert following == [True, False, True]
    desk.say(WORDS[:50])
    assert bar.value() == bar.maximum()


def test_another_button_s_menu_does_not_stop_the_following(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    desk.say(WORDS)
    view = view_of(desk)
    # The menu takes the release for itself.
    qtbot.mousePress(view.viewport(), Qt.MouseButton.RightButton, pos=QPoint(40, 40))
    desk.say(WORDS)
    bar = view.verticalScrollBar()
    assert bar.value() == bar.maximum()


def test_the_menu_of_a_token_inspects_it(desk: Desk) -> None:
    desk.start("Once")
    desk.say(WORDS[:3])
    view = view_of(desk)
    menu = view.menu_at(rect_of(view, len("Once") + 2))
    inspect = menu.actions()[0]
    assert inspect.text() == "Inspect token"
    inspect.trigger()
    assert desk.page.inspector.isVisible()
    empty = view.menu_at(QPoint(40, view.viewport().height() - 2))
    assert "Inspect token" not in [action.text() for action in empty.actions()]
    menu.deleteLater()
    empty.deleteLater()


def test_the_button_leads_back_to_the_end(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    desk.say(WORDS)
    view, button = view_of(desk), desk.second.latest_button
    shown = [button.isVisible()]
    view.verticalScrollBar().triggerAction(QAbstractSlider.SliderAction.SliderToMinimum)
    shown.append(button.isVisible())
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    shown.append(button.isVisible())
    assert shown == [False, True, False]
    assert view.is_following


def test_enter_opens_a_token_wherever_the_cursor_is(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    view = view_of(desk)
    opened: list[int] = []
    view.token_opened.connect(opened.append)
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert opened == []
    desk.say(WORDS[:3])
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert opened == [0]
    assert desk.page.inspector.isVisible()


def test_a_resize_keeps_the_end_in_sight(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    desk.say(WORDS)
    desk.window.resize(1000, 720)
    bar = view_of(desk).verticalScrollBar()
    qtbot.waitUntil(lambda: bar.value() == bar.maximum())
    assert view_of(desk).is_following


@pytest.mark.parametrize("size", [(900, 800), (1280, 640)])
def test_a_smaller_window_keeps_what_is_marked_in_sight(desk: Desk, size: tuple[int, int]) -> None:
    desk.window.resize(1280, 800)
    desk.start()
    desk.say(WORDS)
    view = view_of(desk)
    for token in range(360, 400):
        view.scroll_to_end()
        view.reveal_token(token)
        QApplication.processEvents()
        assert is_shown(view, token)
        desk.window.resize(*size)
        QApplication.processEvents()
        assert is_shown(view, token), token
        desk.window.resize(1280, 800)
        QApplication.processEvents()


def test_narrower_panels_keep_what_is_marked_in_a_finished_answer(desk: Desk) -> None:
    desk.start()
    desk.say(WORDS)
    desk.engine.finish()
    desk.settle()
    view = view_of(desk)
    desk.window.resize(1280, 800)
    view.scroll_to_end()
    QApplication.processEvents()
    seen = [token for token in range(200, 400) if is_shown(view, token)]
    token = seen[len(seen) // 4]
    view.mark_token(token)
    desk.window.resize(900, 800)
    QApplication.processEvents()
    assert is_shown(view, token)


@pytest.mark.parametrize("token", [200, 399])
def test_larger_text_keeps_what_is_marked_in_sight(desk: Desk, token: int) -> None:
    desk.start()
    desk.say(WORDS)
    view = view_of(desk)
    view.reveal_token(token)
    for percent in (150, 220, 100):
        desk.theme.set_text_percent(percent)
        QApplication.processEvents()
        assert is_shown(view, token), percent


def test_a_resize_keeps_the_reader_s_place(desk: Desk) -> None:
    desk.start("Once")
    desk.say(WORDS * 2)
    view = view_of(desk)
    view.show_token(300)
    top = view.cursorForPosition(QPoint(8, 8)).position()
    desk.window.actions_.settings.setChecked(False)
    QApplication.processEvents()
    moved = view.cursorForPosition(QPoint(8, 8)).position()
    assert abs(moved - top) < 120
    assert view.verticalScrollBar().value() < view.verticalScrollBar().maximum()


@pytest.mark.parametrize("backwards", [False, True])
def test_a_selection_stays_while_tokens_arrive(desk: Desk, backwards: bool) -> None:
    desk.start("Once")
    desk.say([" upon", " a"])
    view = view_of(desk)
    cursor = view.textCursor()
    ends = (11, 5) if backwards else (5, 9)
    cursor.setPosition(ends[0])
    cursor.setPosition(ends[1], QTextCursor.MoveMode.KeepAnchor)
    view.setTextCursor(cursor)
    chosen = view.textCursor().selectedText()
    desk.say([" time", " there"])
    assert view.textCursor().selectedText() == chosen


def test_no_selection_appears_by_itself(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" upon"])
    view = view_of(desk)
    view.moveCursor(QTextCursor.MoveOperation.End)
    desk.say([" a", " time"])
    assert not view.textCursor().hasSelection()


def test_all_selected_text_does_not_grow(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" upon"])
    view = view_of(desk)
    view.selectAll()
    desk.say([" a", " time"])
    assert view.textCursor().selectedText() == "Once upon"


def test_held_back_text_is_added_to_the_last_token(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" caf"])
    desk.engine.finish_side(1, FinishReason.MAX_NEW_TOKENS, tail="é")
    desk.page.clock.flush()
    assert view_of(desk).toPlainText() == "Once café"
    assert view_of(desk).token_count == 1


def test_hovering_finds_the_token_under_the_pointer(desk: Desk) -> None:
    desk.start("Once")
    desk.engine.token(1, " few", 2)
    desk.engine.token(1, "", 4)
    counts = [3] * 15 + [8]
    desk.engine.token(1, " <b>\n", counts, token_id=77)  # type: ignore[arg-type]
    desk.page.clock.flush()
    view = view_of(desk)
    assert view.token_at(rect_of(view, 1)) is None
    assert view.token_at(rect_of(view, 5)) == 0
    assert view.token_at(rect_of(view, 9)) == 2
    assert view.token_at(QPoint(view.viewport().width() - 4, 4)) is None
    assert view.token_at(QPoint(20, view.viewport().height() - 4)) is None
    assert view.describe(2) == (
        "Token 2: “ <b>↵” (id 77)\n"
        "Experts, mean over 16 layers: 3.31\n"
        "Fewest and most in a layer: 3 and 8"
    )
    assert "no text of its own" in view.describe(1)


def test_a_token_of_a_run_that_was_replaced_is_not_pointed_at(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" upon", " a", " time"])
    view = view_of(desk)
    place = rect_of(view, 9)
    assert view.token_at(place) == 1
    desk.engine.finish()
    # The next one has begun, and the frame that shows it is still to come.
    desk.start("Once")
    assert view.token_count == 3
    assert view.token_at(place) is None


def test_the_tooltip_escapes_what_a_model_wrote(desk: Desk, qtbot: QtBot) -> None:
    from PySide6.QtCore import QEvent
    from PySide6.QtGui import QHelpEvent

    desk.start("Once")
    desk.say([" <img src=x>"])
    view = view_of(desk)
    point = rect_of(view, 6)
    event = QHelpEvent(QEvent.Type.ToolTip, point, view.viewport().mapToGlobal(point))
    QApplication.sendEvent(view.viewport(), event)
    assert "&lt;img src=x&gt;" in QToolTip.text()
    QToolTip.hideText()


def test_a_new_run_replaces_the_text(desk: Desk) -> None:
    desk.finished_run()
    desk.start("Twice")
    desk.page.clock.flush()
    assert view_of(desk).toPlainText() == "Twice"
    assert view_of(desk).marked_token is None


def test_a_finished_run_is_not_drawn_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.start("Once")
    desk.say(WORDS[:20])
    cleared: list[None] = []
    monkeypatch.setattr(TokenText, "clear", lambda _view: cleared.append(None))
    desk.engine.finish()
    desk.page.clock.flush()
    assert cleared == []


def test_the_theme_redraws_in_place(
    make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(show=True)
    desk.load()
    desk.start("Once")
    desk.say(WORDS)
    view = view_of(desk)
    text, light = view.toPlainText(), view.tint_of(3)
    monkeypatch.setattr(desk.theme, "_system_colors", lambda: DARK)
    desk.theme.follow_system()
    assert view.toPlainText() == text
    assert view.tint_of(3) != light
    assert view.is_following
