"""A text that all sides read: from the switch to what each makes of every token."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QFileDialog
from pytestqt.qtbot import QtBot

from bh_studio.cli.tables.same_text import table
from bh_studio.engine.protocol.events import Failed, JobCancelled, Notice, TextRefused
from bh_studio.engine.protocol.requests import ReadText, RunKept
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.reading import Result, read
from bh_studio.engine.records.same_text.csv_rows import csv_text
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.rules.parameters import Mode, RuleParameters
from bh_studio.settings import Settings
from bh_studio.ui.charts.difference_map import DifferenceMap
from bh_studio.ui.charts.divergence_chart import DivergenceChart
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.charts.limit_chart import LimitChart
from bh_studio.ui.charts.null.null_map import NullMap
from bh_studio.ui.charts.null.null_quantiles import NullQuantiles
from bh_studio.ui.charts.slot.catalogue import CHARTS
from bh_studio.ui.charts.utilisation_map import UtilisationMap
from bh_studio.ui.remembered import remember
from bh_studio.ui.state.session_model import RunState
from tests.fake_engine import CHAT_MODEL, MODEL
from tests.text_results import text_document
from tests.ui.conftest import Desk

RULE = RuleParameters()
TALE = "Once upon a time there was a king"


def ask(desk: Desk, text: str = TALE, *rules: RuleParameters) -> None:
    """Have side A and one more for each of `rules` read `text`."""
    desk.page.prompt.mode.read_button.click()
    desk.page.prompt.set_prompt(text)
    desk.page.settings_panel.show_sides((None, *(rules or (RULE,))))
    desk.window.actions_.run.trigger()


def read_text(desk: Desk, text: str = TALE, *rules: RuleParameters) -> SameTextResult:
    """The same, from start to end."""
    ask(desk, text, *rules)
    result = desk.engine.finish_text()
    desk.settle()
    return result


def turns_of(desk: Desk) -> int:
    """Turns of the conversation that goes on."""
    return len(desk.page.conversation.turns)


def runs_of(desk: Desk) -> int:
    """Runs that there are tabs for."""
    return len(desk.window.files.prompt_runs.runs)


# --- the switch ---------------------------------------------------------------------------------


def test_the_key_for_the_same_text_leads_into_the_editor(desk: Desk, qtbot: QtBot) -> None:
    desk.start()
    desk.window.activateWindow()
    desk.first.text.setFocus()
    qtbot.waitUntil(desk.first.text.hasFocus)
    desk.window.actions_.same_text.trigger()
    assert desk.page.prompt.mode.is_same_text
    assert desk.page.prompt.editor.hasFocus()


def test_the_switch_says_what_the_text_is_for(desk: Desk) -> None:
    prompt, panel, actions = desk.page.prompt, desk.page.settings_panel, desk.window.actions_
    assert prompt.run_button.text() == "Run"
    assert not prompt.open_button.isVisible()
    prompt.mode.read_button.click()
    assert prompt.mode.is_same_text
    assert not prompt.mode.write_button.isChecked()
    assert actions.same_text.isChecked()
    assert prompt.run_button.text() == "Read"
    assert actions.run.text() == "&Read"
    assert actions.run.toolTip() == "Have all sides read the text (Ctrl+Return)"
    assert "nothing is generated" in prompt.editor.placeholderText()
    assert "read as it is" in prompt.editor.toolTip()
    assert prompt.open_button.isVisible()
    assert desk.page.obstacle() == "Type or open a text first."
    assert actions.run.isEnabled() is False
    for control in (panel.max_new_tokens, panel.decoding, panel.seed, panel.top_p):
        assert not control.isEnabled()
    prompt.set_prompt("Once upon")
    assert desk.page.obstacle() == ""
    assert not actions.reseed.isEnabled()
    assert "nothing is generated" in prompt.run_button.toolTip()
    prompt.mode.write_button.click()
    assert not actions.same_text.isChecked()
    assert prompt.run_button.text() == "Run"
    assert actions.run.text() == "&Run"
    assert panel.max_new_tokens.isEnabled()
    assert panel.seed.isEnabled()
    assert actions.reseed.isEnabled()


def test_large_letters_leave_room_for_the_text(desk: Desk) -> None:
    prompt = desk.page.prompt
    prompt.mode.choose(True)
    assert prompt.open_button.isVisible()
    assert prompt.stop_button.y() == prompt.run_button.y()
    desk.theme.set_text_percent(220)
    QApplication.processEvents()
    assert not prompt.open_button.isVisible()
    assert prompt.stop_button.y() > prompt.run_button.y()
    assert prompt.editor.width() > 0.4 * prompt.width()
    assert desk.window.actions_.open_text.isEnabled()


def test_a_key_changes_it(desk: Desk) -> None:
    modifiers = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    desk.qtbot.keyClick(desk.window, Qt.Key.Key_M, modifiers)
    assert desk.page.prompt.mode.is_same_text
    desk.qtbot.keyClick(desk.window, Qt.Key.Key_M, modifiers)
    assert not desk.page.prompt.mode.is_same_text


def test_it_is_remembered(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(Settings(prompt=TALE, same_text=True), show=True)
    assert desk.page.prompt.mode.is_same_text
    assert desk.window.actions_.same_text.isChecked()
    assert not desk.page.settings_panel.max_new_tokens.isEnabled()
    # What is not generated may be impossible, and is not remembered then.
    desk.page.settings_panel.seed.clear()
    assert remember(desk.window).same_text
    assert remember(desk.window).generation == {}
    desk.page.prompt.mode.choose(False)
    assert not remember(desk.window).same_text


def test_a_message_is_read_as_any_text(chat_desk: Desk) -> None:
    desk = chat_desk
    assert desk.page.settings_panel.conversation.isVisible()
    read_text(desk)
    assert not desk.page.settings_panel.conversation.isVisible()
    assert desk.page.can_start_over is None
    assert turns_of(desk) == 0
    assert desk.page.prompt.prompt == TALE


def test_a_text_ends_the_conversation_on_screen(chat_desk: Desk, tmp_path: Path) -> None:
    desk = chat_desk
    desk.page.prompt.set_prompt("Hello")
    desk.window.actions_.run.trigger()
    desk.engine.token(0, " hi")
    desk.engine.token(1, " hi")
    desk.engine.finish()
    assert turns_of(desk) == 1
    read_text(desk)
    assert turns_of(desk) == 0
    path = tmp_path / "tale.json"
    desk.save(path)
    desk.page.prompt.mode.choose(False)
    desk.page.prompt.set_prompt("Hello")
    desk.window.actions_.run.trigger()
    desk.engine.token(0, " hi")
    desk.engine.token(1, " hi")
    desk.engine.finish()
    assert turns_of(desk) == 1
    desk.window.files.open_path(path)
    desk.settle()
    assert turns_of(desk) == 0


def test_a_text_that_waits_for_a_model_that_can_chat_stays_a_text(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(show=True, answering=CHAT_MODEL)
    desk.model.load("embedded")
    ask(desk)
    desk.engine.finish_load()
    assert desk.engine.text.text.content == TALE
    desk.engine.finish_text()
    desk.settle()
    assert desk.first.text.token_count == 7


def test_half_a_character_is_refused_before_it_is_asked_for(desk: Desk) -> None:
    ask(desk, "a \ud800 b")
    assert "half a character" in desk.page.obstacle()
    assert desk.session.state is RunState.IDLE


# --- what is read -------------------------------------------------------------------------------


def test_all_sides_show_the_same_tokens_with_their_own_numbers(desk: Desk) -> None:
    result = read_text(desk)
    assert desk.engine.text.text == Text("Typed text", TALE)
    assert desk.engine.text.sides == (None, RULE)
    for run, reading in zip(desk.session.sides.runs, result.readings, strict=True):
        assert run.about is not None
        assert run.about.passages[0].text == "Once"
        assert run.token_texts == [" upon", " a", " time", " there", " was", " a", " king"]
        np.testing.assert_array_equal(run.counts, reading.counts)
        np.testing.assert_array_equal(run.raw_counts, reading.raw_counts)
        assert run.kl is reading.kl
        choices = run.choices
        assert choices is not None
        choices.check(run.token_count)
        np.testing.assert_allclose(choices.log_probabilities, reading.log_probabilities)
        np.testing.assert_array_equal(choices.ranks, reading.ranks)
        assert run.tokens_per_second is run.time_to_first_token_s is None
        assert run.position(0) == 0
    assert desk.first.text.toPlainText() == desk.second.text.toPlainText() == TALE
    assert desk.session.session is None
    assert desk.page.obstacle() == ""


def test_panels_say_what_was_read_and_how_well(desk: Desk) -> None:
    read_text(desk)
    first, second = desk.first.numbers.text(), desk.second.numbers.text()
    assert first == "7 read · perplexity 1.649 · KL 0.0000 · 8.00 experts"
    assert second == (
        "7 read · perplexity 1.868 · KL 0.2500 · 7.00 experts · min_k decided 0.0 %, max_k 42.9 %"
    )
    assert "Speed" not in desk.second.numbers.toolTip()
    assert desk.second.difference.isHidden()


def test_a_line_says_what_a_rule_costs(desk: Desk) -> None:
    read_text(desk)
    line = desk.page.differences.lines[0]
    assert line.text() == (
        "B against A: KL 0.2500 nats · perplexity 1.868, 13.3 % higher · "
        "7.00 ± 0.00 experts, 12.5 % fewer · token most probable 0.0 %, in A 100.0 % · "
        "another rank at 100.0 % of tokens · min_k decided 0.0 %, max_k 42.9 %"
    )
    assert "KL(A || B)" in line.toolTip()
    assert "Speed" not in line.toolTip()


def test_a_token_tells_its_numbers_in_every_side(desk: Desk) -> None:
    read_text(desk)
    told = desk.first.text.describe(2)
    assert told.splitlines()[-2:] == [
        "A: p 0.6873, rank 1", "B: p 0.6065, rank 2, KL to A 0.1875",
    ]  # fmt: skip
    assert desk.second.text.describe(2).splitlines()[-2:] == told.splitlines()[-2:]


def test_tokens_are_counted_as_in_the_terminal(desk: Desk) -> None:
    result = read_text(desk, TALE, RULE, dataclasses.replace(RULE, level=0.01))
    # Of the terminal's table the lines that begin with the number of a token, the worst first.
    rows = [line.split() for line in table(result).splitlines()]
    terminal = [int(row[0]) for row in rows if row and row[0].isdigit()]
    assert terminal == [7, 6, 5, 4, 3, 2, 1]
    by_key = []
    for _ in terminal:
        by_key.append(re.search(r"nats at (\d+),", press(desk)[2]))
    assert [int(found[1]) for found in by_key if found] == terminal

    exported = csv.DictReader(io.StringIO(csv_text(result)))
    texts = {int(row["position"]): row["token"] for row in exported}
    assert texts == dict(list(enumerate(result.token_texts))[1:])
    view, inspector = desk.first.text, desk.page.inspector
    desk.window.actions_.inspector.setChecked(True)
    desk.slots[0].pick(HeatMap)
    desk.slots[1].pick(DifferenceMap)
    for index, (number, text) in enumerate(texts.items()):
        assert view.describe(index).startswith(f"Token {number}: “{text}”")
        desk.session.selection.select(1, index)
        desk.settle()
        inspector.refresh()
        assert inspector.header.title.text() == f"Token {number} “{text}”"
        for slot in desk.slots:
            assert f"token {number}:" in slot.chart.describe(index, 0)
            assert slot.chart.numbers().label(index)[:2] == (number, text)
    desk.slots[1].pick(DivergenceChart)
    chart = desk.slots[1].chart
    assert chart.describe(6, 0).startswith("Token 7")
    assert chart.numbers().label(6) == (7,)
    for slot in desk.slots:
        axis = slot.chart.axis("bottom")
        ((_, marks),) = axis.tickValues(-0.5, 6.5, 300)
        assert axis.tickStrings(marks, 1, 1) == ["1", "2", "3", "4", "5", "6", "7"]
        assert marks == [0, 1, 2, 3, 4, 5, 6]


def test_a_side_that_was_stopped_counts_alike(desk: Desk) -> None:
    ask(desk, TALE, RULE)
    desk.window.actions_.stop.trigger()
    desk.engine.finish_text(read=1)
    desk.settle()
    assert [run.first_number for run in desk.session.sides.runs] == [1, 1]
    desk.page.prompt.mode.choose(False)
    desk.finished_run()
    assert [run.first_number for run in desk.session.sides.runs] == [0, 0]
    assert desk.first.text.describe(0).startswith("Token 0: ")
    axis = desk.heat_map.axis("bottom")
    assert axis.tickStrings([0, 1], 1, 1) == ["0", "1"]


def test_a_side_that_only_counts_says_so(desk: Desk) -> None:
    read_text(desk, TALE, dataclasses.replace(RULE, mode=Mode.ANALYZE))
    assert "has read with the model's own routing" in desk.second.note
    assert "made" not in desk.second.note


def test_while_it_is_read_the_whole_text_is_there(desk: Desk) -> None:
    ask(desk)
    assert desk.session.state is RunState.RUNNING
    assert desk.page.obstacle().startswith("Reading: ")
    desk.engine.begin_text()
    desk.page.clock.flush()
    assert desk.first.text.toPlainText() == TALE
    assert desk.first.numbers.values["Status"] == "Reading"
    desk.engine.finish_text()
    desk.page.clock.flush()
    assert desk.first.text.toPlainText() == TALE
    assert desk.first.text.token_count == 7


def test_what_should_be_known_stays(desk: Desk, tmp_path: Path) -> None:
    ask(desk)
    desk.engine.begin_text()
    desk.engine.report(Notice("The null is small."))
    desk.engine.finish_text()
    desk.settle()
    assert desk.page.differences.notice.text() == "The null is small."
    path = tmp_path / "tale.json"
    desk.save(path)
    desk.window.files.open_path(path)
    desk.settle()
    assert desk.page.differences.notice.text() == ""


def test_a_refused_text_leaves_what_is_on_screen(desk: Desk) -> None:
    session = desk.finished_run()
    ask(desk)
    message = "Typed text has 5,000 tokens, 3,976 too many: this model reads at most 1,024 at once."
    beginning = Text("Typed text (beginning)", TALE[:16])
    desk.engine.report(TextRefused(message, "Its first 16 characters fit.", "", beginning))
    desk.settle()
    assert desk.window.errors.failure is not None
    assert desk.window.errors.failure.message == message
    assert desk.session.session is session
    assert desk.first.text.token_count == 12
    assert desk.page.prompt.prompt == TALE
    assert desk.session.state is RunState.IDLE
    button = desk.window.errors.remedy_button
    assert button.isVisible()
    assert button.text() == "Read its beginning"
    button.click()
    assert desk.engine.text.text == beginning
    desk.engine.finish_text()
    desk.settle()
    assert not desk.window.errors.isVisible()
    assert desk.first.text.toPlainText() == TALE[:16]
    assert desk.page.prompt.prompt == TALE[:16]
    desk.page.prompt.editor.undo()
    assert desk.page.prompt.prompt == TALE


def test_another_failure_of_a_text_offers_nothing(desk: Desk) -> None:
    ask(desk)
    desk.engine.report(Failed("Out of memory.", "Close other programs.", ""))
    assert desk.window.errors.remedy_button.isHidden()


def test_every_side_that_is_chosen_says_what_will_stand_there(desk: Desk) -> None:
    answers, differences = desk.page.answers, desk.page.differences
    panel, mode = desk.page.settings_panel, desk.page.prompt.mode
    for count in (3, 4, 1, 2):
        panel.show_sides((None, *[RULE] * (count - 1)))
        assert [panel.words for panel in answers.shown] == [
            f"The answer of side {letter} will appear here." for letter in "ABCD"[:count]
        ]
        assert answers.panels[count - 1].isVisible()
    assert differences.expected.isVisible()
    assert "will appear here" in differences.expected.text()
    mode.choose(True)
    assert answers.panels[1].words == "What side B makes of the text will appear here."
    panel.show_sides((None, RULE, RULE))
    read_text(desk)
    assert not differences.expected.isVisible()
    assert len(answers.shown) == 2
    # What is on screen keeps its panels while sides are chosen for the next run.
    panel.show_sides((None, RULE, RULE, RULE))
    desk.page.clock.flush()
    assert len(answers.shown) == 2
    assert [panel.words for panel in answers.shown] == ["", ""]
    desk.session.clear()
    desk.page.clock.flush()
    assert len(answers.shown) == 4


# --- stopping -----------------------------------------------------------------------------------


def test_sides_that_have_read_it_stay_when_it_is_stopped(desk: Desk) -> None:
    ask(desk, TALE, RULE, dataclasses.replace(RULE, level=0.01))
    desk.engine.begin_text()
    desk.window.actions_.stop.trigger()
    assert desk.session.state is RunState.CANCELLING
    assert desk.engine.jobs[-1] in desk.engine.cancelled
    desk.engine.finish_text(read=2)
    desk.settle()
    assert [run.token_count for run in desk.session.sides.runs] == [7, 7, 0]
    third = desk.page.answers.panels[2]
    assert third.text.toPlainText() == TALE
    assert third.numbers.values["Status"] == "Stopped"
    notice = desk.page.differences.notice.text()
    assert notice == "Stopped before C had read the text."
    assert desk.window.actions_.save.isEnabled()


def test_what_was_stopped_is_saved_as_what_it_is(desk: Desk, tmp_path: Path) -> None:
    ask(desk, TALE, RULE, dataclasses.replace(RULE, level=0.01))
    desk.window.actions_.stop.trigger()
    desk.engine.finish_text(read=2)
    desk.settle()
    path = tmp_path / "tale.json"
    assert desk.save(path)
    found = read(path)
    assert isinstance(found, Result)
    assert isinstance(found.record, SameTextResult)
    assert (found.is_complete, found.record.is_complete) == (False, False)
    assert (len(found.record.sides), len(found.record.readings)) == (3, 2)
    desk.page.prompt.mode.choose(False)
    desk.finished_run()
    desk.window.files.open_path(path)
    desk.settle()
    assert [run.token_count for run in desk.session.sides.runs] == [7, 7, 0]
    assert desk.page.answers.panels[2].numbers.values["Status"] == "Stopped"
    assert desk.page.differences.notice.text() == "Stopped before C had read the text."
    desk.window.actions_.export_csv.trigger()
    assert desk.window.files.dialog is not None
    desk.window.files.dialog.fileSelected.emit(str(tmp_path / "tale.csv"))
    desk.settle()
    sides = {row.split(",")[3] for row in (tmp_path / "tale.csv").read_text().splitlines()[1:]}
    assert sides == {"A", "B"}
    desk.window.files.dialog.reject()


def test_what_was_stopped_before_anything_was_known_has_not_failed(desk: Desk) -> None:
    ask(desk)
    desk.engine.begin_text()
    desk.window.actions_.stop.trigger()
    desk.engine.report(JobCancelled())
    desk.settle()
    assert desk.first.numbers.values["Status"] == "Stopped"
    actions = desk.window.actions_
    for action in (actions.save, actions.save_as, actions.export_json, actions.export_csv):
        assert not action.isEnabled()
        assert action.toolTip() == "No side has read the text, so there is nothing to save."
    assert desk.window.errors.failure is None
    assert desk.session.state is RunState.IDLE


# --- selecting ----------------------------------------------------------------------------------


def test_a_token_is_selected_in_all_sides(desk: Desk) -> None:
    read_text(desk)
    desk.session.selection.select(1, 3)
    assert [panel.text.marked_token for panel in desk.page.answers.shown] == [3, 3]


def test_the_inspector_says_why_there_is_nothing(desk: Desk) -> None:
    read_text(desk)
    desk.window.actions_.inspector.setChecked(True)
    desk.session.selection.select(1, 3)
    desk.settle()
    assert "no router logits are kept" in desk.page.inspector.message.text()
    assert desk.engine.files == []
    assert [one.side for one in desk.page.inspector.choices.candidates] == ["A", "B"]


def press(desk: Desk, *, backwards: bool = False) -> tuple[int, int, str]:
    modifier = Qt.KeyboardModifier
    keys = modifier.ShiftModifier if backwards else modifier.NoModifier
    desk.qtbot.keyClick(desk.window, Qt.Key.Key_F3, keys)
    place = desk.session.selection.place
    assert place is not None
    return place.side, place.token, desk.window.status.notice


def test_f3_goes_from_the_largest_kl_to_the_next(desk: Desk) -> None:
    read_text(desk, TALE, RULE, dataclasses.replace(RULE, level=0.01))
    # The seventh that is predicted, which is the eighth of the text: number 7, counted from 0.
    words = "KL of C to A is 0.875 nats at 7, number 1 of the 7 largest"
    assert press(desk) == (2, 6, words)
    assert [panel.text.marked_token for panel in desk.page.answers.shown] == [6, 6, 6]
    assert press(desk)[:2] == (2, 5)
    assert press(desk, backwards=True) == (2, 6, words)
    assert press(desk, backwards=True)[:2] == (2, 0)
    assert press(desk)[2] == f"Back to the largest: {words}"


def test_f3_says_where_there_is_nothing_to_compare(desk: Desk) -> None:
    desk.page.prompt.mode.choose(True)
    desk.page.prompt.set_prompt(TALE)
    desk.page.settings_panel.show_sides((None,))
    desk.window.actions_.run.trigger()
    desk.engine.finish_text()
    desk.qtbot.keyClick(desk.window, Qt.Key.Key_F3)
    assert desk.window.status.notice == ("No other side has read the text to compare with A.")


# --- texts from files ---------------------------------------------------------------------------


def test_a_text_from_a_file_keeps_its_name(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "tale.txt"
    path.write_bytes(b"\xef\xbb\xbfOnce upon\r\na time")
    desk.page.texts.open_path(path)
    desk.qtbot.waitUntil(lambda: bool(desk.page.prompt.prompt))
    assert desk.page.prompt.mode.is_same_text
    assert desk.page.prompt.text == Text("tale.txt", "Once upon\r\na time")
    desk.page.prompt.editor.insertPlainText("!")
    assert desk.page.prompt.text.name == "Typed text"


def test_a_text_is_asked_for_in_the_menu_and_beside_the_text(desk: Desk) -> None:
    for ask_for in (desk.window.actions_.open_text.trigger, desk.page.prompt.open_button.click):
        ask_for()
        dialog = desk.page.texts.dialog
        assert isinstance(dialog, QFileDialog)
        assert dialog.isVisible()
        dialog.reject()


def test_the_next_text_is_looked_for_where_the_last_one_was(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "tale.txt"
    path.write_text("Once upon a time")
    for folder in (desk.window.files.folder(), tmp_path):
        desk.page.texts.ask()
        dialog = desk.page.texts.dialog
        assert dialog is not None
        assert Path(dialog.directory().absolutePath()) == folder
        dialog.fileSelected.emit(str(path))
        dialog.reject()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b" ", "is empty."),
        (b"x" * (2**20 + 1), "longer than the 1 MiB"),
        (b"a " + b"x" * 100_001, "for more than 100,000 characters without a space"),
    ],
)
def test_a_text_that_cannot_be_read_changes_nothing(
    desk: Desk, tmp_path: Path, content: bytes | None, words: str
) -> None:
    desk.page.prompt.set_prompt("Mine")
    path = tmp_path / "tale.txt"
    if content is not None:
        path.write_bytes(content)
    desk.page.texts.open_path(path)
    desk.qtbot.waitUntil(lambda: desk.window.errors.failure is not None)
    assert desk.window.errors.failure is not None
    assert words in desk.window.errors.failure.message
    assert desk.page.prompt.prompt == "Mine"
    assert not desk.page.prompt.mode.is_same_text
    assert [type(body) for body in desk.engine.files] == [ReadText]


# --- saving and opening -------------------------------------------------------------------------


def test_it_is_saved_as_the_terminal_saves_it_and_opened_again(desk: Desk, tmp_path: Path) -> None:
    result = read_text(desk)
    assert desk.page.title == "Unsaved text"
    assert desk.window.actions_.save.isEnabled()
    path = tmp_path / "tale.json"
    assert desk.save(path)
    assert not desk.page.is_unsaved
    assert desk.page.title == "tale.json"
    found = read(path)
    assert isinstance(found, Result)
    assert isinstance(found.record, SameTextResult)
    assert found.record.to_json() == result.to_json()
    assert found.document["settings"] == desk.engine.text.settings()
    desk.page.prompt.mode.choose(False)
    desk.finished_run()
    assert desk.session.document is None
    desk.page.prompt.set_prompt("Another")
    desk.window.files.open_path(path)
    desk.settle()
    assert desk.first.text.toPlainText() == TALE
    assert desk.page.prompt.mode.is_same_text
    assert desk.page.prompt.text == Text("Typed text", TALE)
    assert desk.page.title == "tale.json"
    assert not desk.page.is_unsaved
    assert str(path) in desk.window.files.settings.recent_sessions
    again = tmp_path / "again.json"
    assert desk.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_it_is_exported(desk: Desk, tmp_path: Path) -> None:
    result = read_text(desk)
    actions, files = desk.window.actions_, desk.window.files
    assert not actions.export_experts.isEnabled()
    actions.export_csv.trigger()
    assert files.dialog is not None
    files.dialog.fileSelected.emit(str(tmp_path / "tale.csv"))
    desk.settle()
    assert (tmp_path / "tale.csv").read_bytes() == csv_text(result).encode()
    actions.export_json.trigger()
    files.dialog.fileSelected.emit(str(tmp_path / "tale.json"))
    desk.settle()
    assert json.loads((tmp_path / "tale.json").read_text())["kind"] == "same-text"
    assert not files.is_saved
    files.dialog.reject()


def test_a_damaged_result_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    session = desk.finished_run()
    path = tmp_path / "tale.json"
    path.write_text('{"kind": "same-text", "schema_version": 1}')
    desk.window.files.open_path(path)
    desk.settle()
    assert desk.window.errors.failure is not None
    assert desk.window.errors.failure.message == "tale.json could not be opened."
    assert desk.session.session is session
    assert desk.first.text.token_count == 12


def test_counts_that_no_model_has_are_not_shown(desk: Desk, tmp_path: Path) -> None:
    read_text(desk)
    path = tmp_path / "tale.json"
    desk.save(path)
    document = json.loads(path.read_text())
    document["model"]["experts"] = 1000
    document["rows"][1]["counts"][0][0] = 300
    path.write_text(json.dumps(document))
    before = desk.session.document
    desk.window.files.open_path(path)
    desk.settle()
    assert desk.window.errors.failure is not None
    assert "The numbers of side B are too large." in desk.window.errors.failure.advice
    assert desk.session.document is before


def test_opening_a_session_writes_on(desk: Desk, tmp_path: Path) -> None:
    desk.finished_run()
    path = tmp_path / "run.bhsession"
    assert desk.save(path)
    read_text(desk)
    assert desk.open(path)
    assert not desk.page.prompt.mode.is_same_text
    assert desk.session.document is None
    assert desk.session.sides.same_text is None
    assert desk.first.numbers.values["Tokens"] == "12 tok"


def test_a_text_may_be_asked_for_while_the_model_loads(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(show=True)
    desk.model.load("embedded")
    ask(desk)
    assert desk.session.state is RunState.WAITING
    assert isinstance(desk.engine.requests[-1], RunKept)
    desk.engine.finish_load()
    desk.engine.finish_text()
    desk.settle()
    assert desk.first.text.token_count == 7
    assert desk.session.sides.same_text is not None
    assert desk.session.sides.same_text.model == MODEL


# --- charts -------------------------------------------------------------------------------------


def test_kl_by_position_is_shown_first_and_gives_its_place_back(desk: Desk) -> None:
    read_text(desk)
    assert isinstance(desk.slots[1].chart, DivergenceChart)
    assert isinstance(desk.slots[0].chart, LayerChart)
    assert not desk.slots[1].is_empty
    for kind in CHARTS:
        desk.slots[0].pick(kind)
        # Of a text the fake engine keeps no experts, and it judges no null.
        assert not desk.slots[0].is_empty or kind in (UtilisationMap, NullMap, NullQuantiles)
    desk.page.prompt.mode.choose(False)
    desk.finished_run()
    assert isinstance(desk.slots[1].chart, HeatMap)


def test_the_chart_that_is_remembered_is_the_one_that_was_chosen(desk: Desk) -> None:
    read_text(desk)
    assert desk.slots[1].chart.title == DivergenceChart.title
    assert remember(desk.window).charts == (LayerChart.title, HeatMap.title)


def test_a_text_from_a_file_brings_compare_back(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "tale.txt"
    path.write_text(TALE)
    desk.window.actions_.places["models"].trigger()
    assert desk.window.place is not desk.page
    desk.page.texts.open_path(path)
    desk.qtbot.waitUntil(lambda: desk.window.place is desk.page)


def test_a_chart_that_was_chosen_stays(desk: Desk) -> None:
    picker = desk.slots[1].picker
    picker.setCurrentIndex(CHARTS.index(LimitChart))
    picker.activated.emit(picker.currentIndex())
    read_text(desk)
    assert isinstance(desk.slots[1].chart, LimitChart)


def test_kl_tints_what_was_read_and_experts_what_is_written(desk: Desk) -> None:
    tinting = desk.page.tinting
    assert tinting.current.name == "experts"
    read_text(desk)
    assert tinting.current.name == "kl"
    assert desk.first.text.tint_of(6) == desk.theme.colors.surface
    assert desk.second.text.tint_of(6) != desk.theme.colors.surface
    # Each keeps what a person chooses for it, and what is written is remembered.
    tinting.choose("rank")
    assert remember(desk.window).tint == "experts"
    desk.page.prompt.mode.choose(False)
    desk.finished_run()
    assert tinting.current.name == "experts"
    read_text(desk)
    assert tinting.current.name == "rank"


def test_a_text_is_no_run_of_the_prompt_before_it(desk: Desk) -> None:
    desk.finished_run()
    assert runs_of(desk) == 1
    read_text(desk)
    assert runs_of(desk) == 1
    assert desk.window.files.prompt_runs.current is None


def test_the_selected_token_is_kept_where_another_rule_reads_the_same(desk: Desk) -> None:
    read_text(desk)
    desk.session.selection.select(1, 3)
    read_text(desk, TALE, dataclasses.replace(RULE, level=0.01))
    assert desk.session.selection.place == (1, 3, None)
    read_text(desk, f"{TALE}.")
    assert desk.session.selection.place is None


def refuse(desk: Desk, beginning: str = "Once upon") -> None:
    """The engine finds the text too long."""
    desk.page.prompt.mode.choose(True)
    desk.page.prompt.set_prompt("Once upon a time")
    desk.window.actions_.run.trigger()
    text = Text("Typed text (beginning)", beginning)
    desk.engine.report(TextRefused("It is too long.", "Its first 9 fit.", "", text))


def test_a_beginning_is_read_where_it_is_seen(desk: Desk) -> None:
    refuse(desk)
    desk.window.show_history()
    desk.window.errors.remedy_button.click()
    assert desk.session.is_busy
    assert desk.window.place is desk.page


def test_a_beginning_that_cannot_be_read_now_stays_offered(desk: Desk) -> None:
    refuse(desk)
    desk.model.unload()
    desk.engine.unload()
    desk.window.errors.remedy_button.click()
    assert desk.page.prompt.prompt == "Once upon a time"
    assert desk.window.errors.failure is not None
    assert desk.window.status.notice == desk.page.obstacle() != ""


def test_a_beginning_is_not_offered_for_what_stands_there_no_more(desk: Desk) -> None:
    refuse(desk)
    desk.page.prompt.editor.insertPlainText("!")
    assert desk.window.errors.failure is None
    refuse(desk)
    desk.page.prompt.mode.choose(False)
    assert desk.window.errors.failure is None


def test_a_stopped_text_with_all_its_sides_is_no_result(desk: Desk, tmp_path: Path) -> None:
    _, document = text_document(MODEL, (None, RuleParameters()), "Once upon a time there was")
    path = tmp_path / "text.json"
    path.write_text(json.dumps({**document, "complete": False}))
    session = desk.finished_run()
    desk.window.files.open_path(path)
    desk.settle()
    assert desk.window.errors.failure is not None
    assert "its rows are not those of its sides." in desk.window.errors.failure.advice
    assert desk.session.session is session
    assert not desk.session.sides.is_same_text
