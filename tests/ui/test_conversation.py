"""Chat in the window: turns, the editor between them, new conversations, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QFont, QTextCursor
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, FinishReason, Turn
from bh_studio.engine.rules.parameters import Mode, RuleParameters
from bh_studio.settings import Settings, load_settings, save_settings
from bh_studio.ui.compare.prompt_bar import CHAT_EXAMPLES, EXAMPLES
from bh_studio.ui.compare.token_text import TokenText
from bh_studio.ui.remembered import remember
from bh_studio.ui.state.session_model import RunState
from tests.fake_engine import CHAT_MODEL, MODEL
from tests.ui.conftest import Desk


def ask(desk: Desk, message: str) -> None:
    """Type `message` and run; the engine accepts it."""
    desk.page.prompt.set_prompt(message)
    desk.window.actions_.run.trigger()
    desk.engine.begin()


def turn(desk: Desk, message: str, baseline: list[str], bh: list[str]) -> Session:
    """A whole turn."""
    ask(desk, message)
    desk.say(baseline, bh)
    session = desk.engine.finish(FinishReason.END_OF_TEXT)
    desk.page.clock.flush()
    return session


def texts(desk: Desk) -> tuple[str, str]:
    panels = (desk.first, desk.second)
    left, right = (panel.text.toPlainText() for panel in panels)
    return left, right


def test_each_turn_follows_the_side_s_own_answers(chat_desk: Desk) -> None:
    desk = chat_desk
    desk.page.settings_panel.conversation.show_system("Be brief.")
    turn(desk, "Who?", [" A", " fox"], [" A", " hare"])
    assert desk.engine.run.conversation == Conversation("Be brief.")
    turn(desk, "Why?", [" So"], [" No"])
    turns = (Turn("Who?", (" A fox", " A hare")),)
    assert desk.engine.run.conversation == Conversation("Be brief.", turns)
    assert texts(desk) == (
        "System: Be brief.\n\nYou: Who?\nA fox\n\nYou: Why?\n So",
        "System: Be brief.\n\nYou: Who?\nA hare\n\nYou: Why?\n No",
    )
    # Charts and figures are those of the turn.
    assert desk.second.numbers.values["Tokens"] == "1 tok"
    assert desk.heat_map.shown_cells.shape[0] == 1
    assert desk.page.conversation.turns == (*turns, Turn("Why?", (" So", " No")))


def test_other_sides_cannot_go_on_and_are_told_so(chat_desk: Desk) -> None:
    desk = chat_desk
    turn(desk, "Who?", [" A"], [" B"])
    desk.page.prompt.set_prompt("Why?")
    desk.window.actions_.add_side.trigger()
    words = (
        "The turns so far were answered by 2 sides, and now there are 3; set as many, or begin a "
        "new conversation."
    )
    assert desk.page.obstacle() == words
    assert not desk.window.actions_.run.isEnabled()
    desk.window.actions_.remove_side.trigger()
    assert desk.page.obstacle() == ""
    desk.window.actions_.add_side.trigger()
    desk.page.start_over()
    assert desk.page.obstacle() == ""


def test_other_sides_that_waited_for_an_instruct_model_are_told_so(chat_desk: Desk) -> None:
    desk = chat_desk
    turn(desk, "Who?", [" A"], [" B"])
    desk.model.load("embedded")
    desk.engine.unload()
    desk.page.prompt.set_prompt("Why?")
    desk.window.actions_.add_side.trigger()
    desk.window.actions_.run.trigger()
    assert desk.session.state is RunState.WAITING
    desk.engine.finish_load()
    assert not desk.session.is_busy
    failure = desk.window.errors.failure
    assert failure is not None
    assert failure.message == "The message was not sent."
    assert "answered by 2 sides, and now there are 3" in failure.advice


def look_of(view: TokenText, word: str) -> tuple[str, bool, bool]:
    """Colour, whether bold, whether tinted, of the first letter of `word`."""
    cursor = QTextCursor(view.document())
    cursor.setPosition(view.toPlainText().index(word) + 1)
    look = cursor.charFormat()
    tinted = look.background().style() is not Qt.BrushStyle.NoBrush
    return look.foreground().color().name(), look.fontWeight() > QFont.Weight.Normal, tinted


def test_what_was_said_before_looks_unlike_the_answer(chat_desk: Desk) -> None:
    desk = chat_desk
    turn(desk, "Who?", [" fox"], [" hare"])
    turn(desk, "Why?", [" So"], [" No"])
    colors = desk.theme.colors
    view = desk.second.text
    assert look_of(view, "Who") == (colors.muted.name(), True, False)
    assert look_of(view, "hare") == (colors.muted.name(), False, False)
    assert look_of(view, "Why") == (colors.muted.name(), True, False)
    assert look_of(view, " No") == (colors.text.name(), False, True)
    assert view.tint_of(0).isValid()


def test_earlier_turns_are_shown_and_copied_literally(chat_desk: Desk) -> None:
    desk = chat_desk
    turn(desk, "<b>You:</b>\u202e", ["<i>x</i>\0"], ["&lt;"])
    turn(desk, "Why?", ["👩‍🔬"], [" No"])
    view = desk.first.text
    assert view.toPlainText() == "You: <b>You:</b>\ufffd\n<i>x</i>␀\n\nYou: Why?\n👩‍🔬"
    view.selectAll()
    view.copy()
    assert QApplication.clipboard().text() == (
        "You: <b>You:</b>\u202e\n<i>x</i>\0\n\nYou: Why?\n👩‍🔬"
    )
    assert view.token_count == 1
    view.show_token(0)
    assert view.marked_token == 0


def test_a_message_leaves_the_editor_when_it_is_accepted(chat_desk: Desk) -> None:
    desk = chat_desk
    prompt = desk.page.prompt
    prompt.set_prompt("Who?")
    desk.window.actions_.run.trigger()
    assert prompt.prompt == "Who?"
    desk.engine.begin()
    assert prompt.prompt == ""
    prompt.editor.undo()
    assert prompt.prompt == "Who?"


def test_plain_text_stays_in_the_editor(chat_desk: Desk) -> None:
    desk = chat_desk
    desk.page.settings_panel.conversation.show_choice(is_chat=False)
    turn(desk, "Once", [" upon"], [" upon"])
    assert desk.engine.run.conversation is None
    assert desk.page.prompt.prompt == "Once"
    assert texts(desk) == ("Once upon", "Once upon")


def test_a_refused_message_stays_and_so_does_the_conversation(chat_desk: Desk) -> None:
    desk = chat_desk
    session = turn(desk, "Who?", [" fox"], [" hare"])
    before = texts(desk)
    desk.page.prompt.set_prompt("Too long")
    desk.window.actions_.run.trigger()
    desk.engine.fail("The conversation is too long.")
    desk.page.clock.flush()
    assert desk.page.prompt.prompt == "Too long"
    assert desk.session.session is session
    assert texts(desk) == before
    turn(desk, "Why?", [" So"], [" No"])
    assert desk.engine.run.conversation == Conversation("", (Turn("Who?", (" fox", " hare")),))


def test_a_message_comes_back_when_its_answer_fails(chat_desk: Desk) -> None:
    desk = chat_desk
    turn(desk, "Who?", [" fox"], [" hare"])
    ask(desk, "Why?")
    desk.say([" So"], [" No"])
    desk.engine.fail()
    desk.page.clock.flush()
    assert desk.page.prompt.prompt == "Why?"
    assert texts(desk)[0] == "You: Who?\nfox\n\nYou: Why?\n So"
    turns = (Turn("Who?", (" fox", " hare")),)
    assert desk.page.conversation.turns == turns
    turn(desk, "Why?", [" So"], [" No"])
    assert desk.engine.run.conversation == Conversation("", turns)


def test_a_message_that_was_changed_meanwhile_stays(chat_desk: Desk) -> None:
    prompt = chat_desk.page.prompt
    prompt.set_prompt("Who?")
    chat_desk.window.actions_.run.trigger()
    prompt.set_prompt("Who are you?")
    chat_desk.engine.begin()
    assert prompt.prompt == "Who are you?"


def test_what_was_typed_meanwhile_is_not_overwritten(chat_desk: Desk) -> None:
    desk = chat_desk
    ask(desk, "Why?")
    desk.page.prompt.set_prompt("And then?")
    desk.engine.fail()
    assert desk.page.prompt.prompt == "And then?"


def test_a_stopped_answer_is_remembered_as_it_is(chat_desk: Desk) -> None:
    desk = chat_desk
    ask(desk, "Who?")
    desk.engine.token(0, " A")
    desk.window.actions_.stop.trigger()
    desk.engine.finish(FinishReason.STOPPED)
    assert desk.page.conversation.turns == (Turn("Who?", (" A", "")),)
    assert desk.page.prompt.prompt == ""


def test_a_message_stopped_before_any_answer_comes_back(chat_desk: Desk) -> None:
    desk = chat_desk
    turn(desk, "Who?", [" fox"], [" hare"])
    ask(desk, "Why?")
    desk.window.actions_.stop.trigger()
    desk.engine.finish(FinishReason.STOPPED)
    assert desk.page.prompt.prompt == "Why?"
    assert desk.page.conversation.turns == (Turn("Who?", (" fox", " hare")),)


def test_a_new_conversation_forgets_the_turns(chat_desk: Desk, qtbot: QtBot) -> None:
    desk, window, page = chat_desk, chat_desk.window, chat_desk.page
    assert page.prompt.new_button.isVisible()
    assert not page.prompt.new_button.isEnabled()
    ask(desk, "Who?")
    desk.say([" fox"], [" hare"])
    assert not window.actions_.new_conversation.isEnabled()
    desk.engine.finish()
    page.prompt.set_prompt("Unsent")
    qtbot.mouseClick(page.prompt.new_button, Qt.MouseButton.LeftButton)
    page.clock.flush()
    assert texts(desk) == ("", "")
    assert desk.second.numbers.values["Tokens"] == ""
    assert all(slot.is_empty for slot in desk.slots)
    assert desk.session.session is None
    assert not window.actions_.save.isEnabled()
    assert not page.prompt.new_button.isEnabled()
    assert page.prompt.prompt == "Unsent"
    turn(desk, "Again", [" a"], [" b"])
    assert desk.engine.run.conversation == Conversation()
    window.actions_.new_conversation.trigger()
    assert page.conversation.turns == ()


def test_a_new_conversation_by_keyboard(chat_desk: Desk, qtbot: QtBot) -> None:
    desk = chat_desk
    turn(desk, "Who?", [" fox"], [" hare"])
    desk.window.activateWindow()
    desk.page.prompt.editor.setFocus()
    qtbot.waitUntil(desk.page.prompt.editor.hasFocus)
    qtbot.keyClick(desk.page.prompt.editor, Qt.Key.Key_N, Qt.KeyboardModifier.ControlModifier)
    assert desk.page.conversation.turns == ()


def test_the_system_prompt_counts_from_the_next_turn_on(chat_desk: Desk) -> None:
    desk = chat_desk
    controls = desk.page.settings_panel.conversation
    turn(desk, "Who?", [" fox"], [" hare"])
    controls.show_system("Be kind.")
    turn(desk, "Why?", [" So"], [" No"])
    conversation = desk.engine.run.conversation
    assert isinstance(conversation, Conversation)
    assert (conversation.system, len(conversation.turns)) == ("Be kind.", 1)
    controls.show_system("  \n")
    turn(desk, "And?", [" a"], [" b"])
    conversation = desk.engine.run.conversation
    assert isinstance(conversation, Conversation)
    assert conversation.system == ""


def test_plain_text_ends_the_conversation_on_screen(chat_desk: Desk) -> None:
    desk = chat_desk
    controls = desk.page.settings_panel.conversation
    turn(desk, "Who?", [" fox"], [" hare"])
    controls.show_choice(is_chat=False)
    assert not controls.system_editor.isEnabled()
    assert not desk.page.prompt.new_button.isVisible()
    turn(desk, "Once", [" upon"], [" a"])
    controls.show_choice(is_chat=True)
    assert not desk.page.prompt.new_button.isEnabled()
    turn(desk, "Why?", [" So"], [" No"])
    assert desk.engine.run.conversation == Conversation()


def test_a_plain_run_that_fails_has_ended_the_conversation_too(chat_desk: Desk) -> None:
    desk = chat_desk
    turn(desk, "Who?", [" fox"], [" hare"])
    desk.page.settings_panel.conversation.show_choice(is_chat=False)
    ask(desk, "Once")
    desk.engine.fail()
    assert desk.page.prompt.prompt == "Once"
    assert desk.page.conversation.turns == ()
    assert not desk.page.conversation.can_start_over


def test_a_base_model_shows_nothing_of_it(desk: Desk) -> None:
    window, page = desk.window, desk.page
    assert not page.settings_panel.conversation.isVisible()
    assert not page.prompt.new_button.isVisible()
    assert not window.actions_.new_conversation.isVisible()
    assert page.prompt.editor.placeholderText().startswith("Type the beginning of a text")
    menu = page.prompt.examples.menu()
    assert [action.data() for action in menu.actions()] == list(EXAMPLES)
    desk.finished_run()
    assert desk.engine.run.conversation is None
    assert page.conversation.turns == ()


def test_the_controls_follow_the_model(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(show=True, answering=CHAT_MODEL)
    window, page = desk.window, desk.page
    assert not page.settings_panel.conversation.isVisible()
    desk.load()
    assert page.settings_panel.conversation.isVisible()
    assert page.prompt.editor.placeholderText() == "Type a message; all sides will answer it."
    menu = page.prompt.examples.menu()
    assert [action.data() for action in menu.actions()] == list(CHAT_EXAMPLES)
    turn(desk, "Who?", [" fox"], [" hare"])
    assert "next message" in page.prompt.editor.placeholderText()
    desk.engine.model = MODEL
    desk.load()
    assert not page.settings_panel.conversation.isVisible()
    assert page.prompt.editor.placeholderText().startswith("Type the beginning of a text")
    assert [action.data() for action in menu.actions()] == list(EXAMPLES)
    page.prompt.set_prompt("Once")
    window.actions_.run.trigger()
    assert desk.engine.run.conversation is None


def test_a_saved_conversation_is_shown_and_continued(
    chat_desk: Desk, make_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    path = tmp_path / "chat.bhsession"
    chat_desk.page.settings_panel.conversation.show_system("Be brief.")
    turn(chat_desk, "Who?", [" A", " fox"], [" A", " hare"])
    last = turn(chat_desk, "Why?", [" So"], [" No"])
    assert chat_desk.save(path)

    # Opened before the model is there, as from the command line.
    other = make_desk(Settings(chat=False), show=True, answering=CHAT_MODEL)
    other.window.compare.prompt.set_prompt("Something else")
    assert other.open(path)
    other.window.compare.clock.flush()
    assert texts(other) == texts(chat_desk)
    assert other.page.prompt.prompt == ""
    other.load()
    assert other.page.prompt.new_button.isEnabled()
    assert other.page.settings_panel.conversation.system == "Be brief."
    turn(other, "And?", [" x"], [" y"])
    assert other.engine.run.conversation == last.continued


def test_a_plain_session_is_opened_as_plain_text(
    chat_desk: Desk, desk: Desk, tmp_path: Path
) -> None:
    controls = chat_desk.page.settings_panel.conversation
    controls.show_choice(is_chat=False)
    turn(chat_desk, "Once", [" upon"], [" a"])
    chat_desk.save(tmp_path / "plain.bhsession")
    controls.show_choice(is_chat=True)
    chat_desk.open(tmp_path / "plain.bhsession")
    assert not controls.is_chat
    assert chat_desk.page.prompt.prompt == "Once"
    # A session of a base model had no choice, so it changes none.
    desk.finished_run()
    desk.save(tmp_path / "base.bhsession")
    controls.show_choice(is_chat=True)
    chat_desk.open(tmp_path / "base.bhsession")
    assert controls.is_chat


def test_a_later_turn_suggests_a_name_of_its_own(chat_desk: Desk) -> None:
    names = []
    for message in ("Who are you?", "Why?"):
        turn(chat_desk, message, [" a"], [" b"])
        chat_desk.window.actions_.save_as.trigger()
        dialog = chat_desk.window.files.dialog
        assert dialog is not None
        names.append(Path(dialog.selectedFiles()[0]).name)
        dialog.reject()
    assert names == ["Who are you.bhsession", "Who are you - turn 2.bhsession"]


def test_choice_and_system_prompt_are_remembered(
    chat_desk: Desk, make_desk: Callable[..., Desk]
) -> None:
    controls = chat_desk.page.settings_panel.conversation
    controls.show_choice(is_chat=False)
    controls.show_system("Be\nbrief.")
    save_settings(remember(chat_desk.window))
    settings = load_settings()
    assert (settings.chat, settings.system_prompt) == (False, "Be\nbrief.")
    again = make_desk(settings, answering=CHAT_MODEL).window.compare.settings_panel.conversation
    assert (again.is_chat, again.system) == (False, "Be\nbrief.")
    assert Settings().chat


def test_the_first_difference_and_analyze_work_in_a_chat(chat_desk: Desk) -> None:
    desk = chat_desk
    turn(desk, "Who?", [" A", " fox"], [" A", " hare"])
    assert desk.second.difference.text() == "Differs from A at 1"
    desk.second.difference.click()
    assert desk.first.text.marked_token == 1
    desk.page.settings_panel.show_sides((None, RuleParameters(mode=Mode.ANALYZE)))
    turn(desk, "Why?", [" So"], [" So"])
    assert desk.second.note
    assert not desk.session.is_busy


@pytest.mark.parametrize("index", range(len(CHAT_EXAMPLES)))
def test_examples_of_a_chat_are_messages(chat_desk: Desk, index: int) -> None:
    chat_desk.page.prompt.examples.menu().actions()[index].trigger()
    assert chat_desk.page.prompt.prompt == CHAT_EXAMPLES[index]
