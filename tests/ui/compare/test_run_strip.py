"""The tabs of the runs of one prompt."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from PySide6.QtCore import Qt

from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules import RuleParameters
from bh_studio.ui.state.prompt_runs import PromptRun, run_meaning, run_names
from tests.fake_engine import MODEL
from tests.ui.conftest import Desk

pytestmark = pytest.mark.usefixtures("collected")

LOOSE, STRICT = RuleParameters(level=0.1), RuleParameters(level=0.01)


def a_run(desk: Desk, rule: RuleParameters, word: str, prompt: str = "Once", seed: int = 0) -> None:
    desk.start(prompt, rule, GenerationParameters(seed=seed))
    desk.say([f" {word}", " end"])
    desk.engine.finish()
    desk.settle()


def names(desk: Desk) -> list[str]:
    tabs = desk.page.runs.tabs
    return [tabs.tabText(place) for place in range(tabs.count())]


def press(desk: Desk, key: Qt.Key) -> None:
    desk.qtbot.keyClick(desk.window, key, Qt.KeyboardModifier.AltModifier)
    desk.settle()


def click(desk: Desk, place: int) -> None:
    tabs = desk.page.runs.tabs
    desk.qtbot.mouseClick(tabs, Qt.MouseButton.LeftButton, pos=tabs.tabRect(place).center())


@pytest.mark.parametrize("is_kept", [True, False])
def test_an_earlier_run_comes_back_by_key_and_by_click(
    desk: Desk, tmp_path: Path, is_kept: bool
) -> None:
    desk.engine.history = tmp_path if is_kept else None
    a_run(desk, LOOSE, "first")
    assert desk.page.runs.isHidden()
    a_run(desk, STRICT, "second")
    assert desk.page.runs.isVisible()
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01"]
    assert desk.page.runs.tabs.currentIndex() == 1

    press(desk, Qt.Key.Key_Left)
    assert "first" in desk.second.text.toPlainText()
    assert desk.page.runs.tabs.currentIndex() == 0
    assert desk.session.session is not None
    assert desk.session.session.sides == (None, LOOSE)
    assert desk.window.isWindowModified()
    # Looking at it changes no setting.
    assert desk.page.settings_panel.sides() == (None, STRICT)
    press(desk, Qt.Key.Key_Left)
    assert "first" in desk.second.text.toPlainText()

    click(desk, 1)
    desk.settle()
    assert "second" in desk.second.text.toPlainText()


def test_its_settings_are_taken_when_they_are_asked_for(desk: Desk) -> None:
    a_run(desk, LOOSE, "first", seed=3)
    a_run(desk, STRICT, "second", seed=4)
    press(desk, Qt.Key.Key_Left)
    desk.qtbot.mouseClick(desk.page.runs.settings_button, Qt.MouseButton.LeftButton)
    panel = desk.page.settings_panel
    assert panel.sides() == (None, LOOSE)
    assert panel.generation().seed == 3


def test_another_prompt_begins_anew_and_a_run_in_flight_is_not_left(desk: Desk) -> None:
    a_run(desk, LOOSE, "first")
    desk.start("Once", STRICT)
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01"]
    assert not desk.page.runs.tabs.isEnabled()
    assert not desk.window.actions_.earlier_run.isEnabled()
    desk.say([" second"])
    press(desk, Qt.Key.Key_Left)
    assert "second" in desk.second.text.toPlainText()
    desk.engine.finish()
    desk.settle()
    assert desk.page.runs.tabs.isEnabled()
    a_run(desk, LOOSE, "third", prompt="Twice")
    assert desk.page.runs.isHidden()


@pytest.mark.parametrize("place", [0, 1])
def test_a_run_that_failed_leaves_the_others(desk: Desk, place: int) -> None:
    a_run(desk, LOOSE, "first")
    a_run(desk, STRICT, "second")
    desk.start("Once", RuleParameters(level=0.2))
    desk.say([" third"])
    desk.engine.report(Failed("It broke.", "Try again.", ""))
    desk.settle()
    # It has a tab while it is on screen: no other one is pressed, so each can be gone to.
    tabs = desk.page.runs.tabs
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01", "#3 bh:0.2"]
    assert tabs.currentIndex() == 2
    click(desk, place)
    desk.settle()
    assert ("first", "second")[place] in desk.second.text.toPlainText()
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01"]
    assert tabs.currentIndex() == place


def test_from_a_run_that_failed_a_key_goes_to_the_one_before(desk: Desk) -> None:
    a_run(desk, LOOSE, "first")
    desk.start("Once", STRICT)
    desk.engine.report(Failed("It broke.", "Try again.", ""))
    desk.settle()
    press(desk, Qt.Key.Key_Left)
    assert "first" in desk.second.text.toPlainText()
    assert desk.page.runs.isHidden()


def test_what_a_failed_run_had_said_is_shown_under_its_own_tab(desk: Desk, tmp_path: Path) -> None:
    desk.engine.history = tmp_path
    a_run(desk, LOOSE, "first")
    desk.start("Once", STRICT)
    desk.say([" second"])
    desk.engine.report(Failed("It broke.", "Try again.", ""))
    desk.settle()
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01"]
    press(desk, Qt.Key.Key_Left)
    press(desk, Qt.Key.Key_Right)
    assert "second" in desk.second.text.toPlainText()


def test_who_goes_back_before_another_run_is_read_stays(desk: Desk, tmp_path: Path) -> None:
    desk.engine.history = tmp_path
    a_run(desk, LOOSE, "first")
    a_run(desk, STRICT, "second")
    click(desk, 0)
    click(desk, 1)
    desk.settle()
    assert "second" in desk.second.text.toPlainText()
    assert desk.page.runs.tabs.currentIndex() == 1


def test_of_several_runs_asked_for_the_last_is_shown(desk: Desk, tmp_path: Path) -> None:
    desk.engine.history = tmp_path
    a_run(desk, LOOSE, "first")
    desk.engine.history = None
    a_run(desk, STRICT, "second")
    a_run(desk, STRICT, "third")
    # The first one has to be read, the second one is held.
    click(desk, 0)
    click(desk, 1)
    desk.settle()
    assert "second" in desk.second.text.toPlainText()
    assert desk.page.runs.tabs.currentIndex() == 1


def test_keys_go_on_from_the_run_that_is_being_read(desk: Desk, tmp_path: Path) -> None:
    desk.engine.history = tmp_path
    for rule, word in ((LOOSE, "first"), (STRICT, "second"), (STRICT, "third")):
        a_run(desk, rule, word)
    for _ in range(2):
        desk.qtbot.keyClick(desk.window, Qt.Key.Key_Left, Qt.KeyboardModifier.AltModifier)
    desk.settle()
    assert "first" in desk.second.text.toPlainText()


def test_what_is_left_while_a_run_is_read_stays_left(desk: Desk, tmp_path: Path) -> None:
    desk.engine.history = tmp_path
    a_run(desk, LOOSE, "first")
    a_run(desk, STRICT, "second")
    click(desk, 0)
    desk.session.clear()
    desk.settle()
    assert desk.session.session is None
    assert desk.page.runs.isHidden()


def test_a_file_that_is_asked_for_meanwhile_and_cannot_be_opened_leaves_the_tab_of_the_screen(
    desk: Desk, tmp_path: Path
) -> None:
    desk.engine.history = tmp_path
    a_run(desk, LOOSE, "first")
    a_run(desk, STRICT, "second")
    click(desk, 0)
    desk.window.files.open_path(tmp_path / "none.bhsession")
    desk.settle()
    assert "second" in desk.second.text.toPlainText()
    assert desk.page.runs.tabs.currentIndex() == 1


def test_a_run_whose_file_was_saved_over_is_not_saved_nor_taken_for_the_other(
    desk: Desk, tmp_path: Path
) -> None:
    path = tmp_path / "run.bhsession"
    a_run(desk, LOOSE, "first")
    assert desk.save(path)
    a_run(desk, STRICT, "second")
    assert desk.save(path)
    press(desk, Qt.Key.Key_Left)
    assert "second" in desk.second.text.toPlainText()
    assert desk.window.errors.failure is not None
    assert desk.window.errors.failure.message == "Run 1 of this prompt could not be shown."
    assert desk.window.errors.failure.advice == "Its file holds something else now."
    assert names(desk) == ["#2 bh:0.01"]


def test_a_kept_run_whose_file_was_saved_over_is_unsaved_again(desk: Desk, tmp_path: Path) -> None:
    desk.engine.history = tmp_path / "history"
    path = tmp_path / "run.bhsession"
    a_run(desk, LOOSE, "first")
    assert desk.save(path)
    a_run(desk, STRICT, "second")
    assert desk.save(path)
    press(desk, Qt.Key.Key_Left)
    assert "first" in desk.second.text.toPlainText()
    assert desk.window.windowTitle().startswith("Unsaved run")
    assert desk.window.actions_.save.isEnabled()
    # What the file holds now is the other one, so that is what it is opened as.
    assert desk.open(path)
    assert desk.page.runs.tabs.currentIndex() == 1
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01"]


def test_a_run_whose_folder_is_gone_says_so_and_what_is_on_screen_stays(
    desk: Desk, tmp_path: Path
) -> None:
    desk.engine.history = tmp_path
    a_run(desk, LOOSE, "first")
    a_run(desk, STRICT, "second")
    first = desk.window.files.prompt_runs.runs[0].place
    assert first is not None
    shutil.rmtree(first)
    press(desk, Qt.Key.Key_Left)
    assert "second" in desk.second.text.toPlainText()
    assert desk.window.errors.failure is not None
    assert len(desk.window.files.prompt_runs.runs) == 1
    assert desk.window.files.prompt_runs.current is desk.window.files.prompt_runs.runs[0]


def test_a_saved_run_is_still_saved_when_it_comes_back(desk: Desk, tmp_path: Path) -> None:
    a_run(desk, LOOSE, "first")
    path = tmp_path / "first.bhsession"
    assert desk.save(path)
    a_run(desk, STRICT, "second")
    assert desk.window.windowTitle().startswith("Unsaved run")
    press(desk, Qt.Key.Key_Left)
    assert desk.window.windowTitle().startswith("first.bhsession")
    assert not desk.window.isWindowModified()
    press(desk, Qt.Key.Key_Right)
    assert desk.window.windowTitle().startswith("Unsaved run")


def test_an_opened_run_of_the_same_prompt_joins_the_others_once(desk: Desk, tmp_path: Path) -> None:
    a_run(desk, LOOSE, "first")
    path = tmp_path / "first.bhsession"
    assert desk.save(path)
    a_run(desk, STRICT, "second")
    assert desk.open(path)
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01"]
    assert desk.page.runs.tabs.currentIndex() == 0


def test_only_a_few_runs_are_held_that_lie_nowhere(desk: Desk) -> None:
    for number in range(7):
        a_run(desk, LOOSE, f"word{number}", seed=number)
    assert names(desk)[0].startswith("#3 bh:0.1 · seed 2")
    held: list[Session | None] = [run.session for run in desk.window.files.prompt_runs.runs]
    assert len(held) == 5
    assert None not in held


def test_runs_of_two_models_are_told_apart(desk: Desk) -> None:
    a_run(desk, LOOSE, "first")
    desk.engine.model = dataclasses.replace(MODEL, name="olmoe-other", fingerprint="e" * 64)
    desk.load()
    a_run(desk, LOOSE, "second")
    assert names(desk) == ["#1 bh:0.1 · olmoe-nano", "#2 bh:0.1 · olmoe-other"]
    assert "olmoe-nano" in desk.page.runs.tabs.tabToolTip(0)


def test_names_say_in_which_settings_runs_differ() -> None:
    sampled, greedy = GenerationParameters(), GenerationParameters(sampling=False)
    runs = [PromptRun(1, MODEL, (None, LOOSE), sampled), PromptRun(2, MODEL, (None,), greedy)]
    assert run_names(runs) == [
        "#1 bh:0.1 · temperature 0.8 · top-p 0.95 · seed 0",
        "#2 own · greedy",
    ]
    assert run_names([runs[0], PromptRun(2, MODEL, (LOOSE, STRICT), sampled)]) == [
        "#1 bh:0.1",
        "#2 bh:0.1, bh:0.01",
    ]
    assert run_meaning(runs[0]).splitlines()[0] == "A: own routing"


def test_a_text_that_is_read_between_leaves_the_runs_for_the_next_one(desk: Desk) -> None:
    a_run(desk, LOOSE, "first")
    a_run(desk, STRICT, "second")
    desk.page.prompt.mode.choose(True)
    desk.page.prompt.set_prompt("A text that all sides read.")
    desk.window.actions_.run.trigger()
    desk.engine.finish_text()
    desk.settle()
    assert desk.page.runs.isHidden()
    assert not desk.window.actions_.earlier_run.isEnabled()
    desk.page.prompt.mode.choose(False)
    a_run(desk, RuleParameters(level=0.2), "third")
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01", "#3 bh:0.2"]
    press(desk, Qt.Key.Key_Left)
    assert "second" in desk.second.text.toPlainText()
