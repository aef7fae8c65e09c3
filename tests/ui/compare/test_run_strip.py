"""The tabs of the runs of one prompt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PySide6.QtCore import Qt

from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules import RuleParameters
from bh_studio.ui.state.prompt_runs import PromptRun, run_meaning, run_names
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

    tabs = desk.page.runs.tabs
    desk.qtbot.mouseClick(tabs, Qt.MouseButton.LeftButton, pos=tabs.tabRect(1).center())
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
    assert not desk.window.actions_.former_run.isEnabled()
    desk.say([" second"])
    press(desk, Qt.Key.Key_Left)
    assert "second" in desk.second.text.toPlainText()
    desk.engine.finish()
    desk.settle()
    assert desk.page.runs.tabs.isEnabled()
    a_run(desk, LOOSE, "third", prompt="Twice")
    assert desk.page.runs.isHidden()


def test_a_run_that_failed_leaves_the_others(desk: Desk) -> None:
    a_run(desk, LOOSE, "first")
    a_run(desk, STRICT, "second")
    desk.start("Once", RuleParameters(level=0.2))
    desk.engine.report(Failed("It broke.", "Try again.", ""))
    desk.settle()
    assert names(desk) == ["#1 bh:0.1", "#2 bh:0.01"]
    tabs = desk.page.runs.tabs
    desk.qtbot.mouseClick(tabs, Qt.MouseButton.LeftButton, pos=tabs.tabRect(0).center())
    desk.settle()
    assert "first" in desk.second.text.toPlainText()


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


def test_names_say_in_which_settings_runs_differ() -> None:
    sampled, greedy = GenerationParameters(), GenerationParameters(sampling=False)
    runs = [PromptRun(1, (None, LOOSE), sampled), PromptRun(2, (None,), greedy)]
    assert run_names(runs) == [
        "#1 bh:0.1 · temperature 0.8 · top-p 0.95 · seed 0",
        "#2 own · greedy",
    ]
    assert run_names([runs[0], PromptRun(2, (LOOSE, STRICT), sampled)]) == [
        "#1 bh:0.1",
        "#2 bh:0.1, bh:0.01",
    ]
    assert run_meaning(runs[0]).splitlines()[0] == "A: own routing"
