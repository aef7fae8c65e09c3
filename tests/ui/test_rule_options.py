"""What the command line says of the window's sides, and forms and sessions of any rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from bh_studio import __main__ as program
from bh_studio.app import WindowOptions, run_window
from bh_studio.engine.records.session_file import save_session
from bh_studio.engine.rules import (
    CATALOGUE,
    MixingWeights,
    Mode,
    RuleParameters,
    ScoreName,
    parse_rule,
)
from bh_studio.engine.rules.names import NullName, OnEmpty
from bh_studio.settings import Settings, save_settings
from bh_studio.ui.errand import Errand
from tests.fake_engine import FakeEngine
from tests.ui.conftest import Desk

REMEMBERED = RuleParameters(level=0.001, temperature=2.0, min_k=2, max_k=12)


@pytest.fixture
def engine(qapp: QApplication) -> Iterator[FakeEngine]:
    engine = FakeEngine()
    engine.loads_at_once = True
    engine.script = {0: [" a", " fox"], 1: [" a", " fox"]}
    font = qapp.font()
    yield engine
    qapp.setStyleSheet("")
    qapp.setFont(font)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[WindowOptions]:
    """What the program would open a window with, which it does not do."""
    asked: list[WindowOptions] = []

    def take(options: WindowOptions) -> int:
        asked.append(options)
        return 0

    # Logging and the display are the process's.
    monkeypatch.setattr(program, "_start_logging", lambda: None)
    monkeypatch.setattr("bh_studio.display.window_problem", lambda: None)
    monkeypatch.setattr("bh_studio.app.run_window", take)
    return asked


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ([], {}),
        (["--alpha", "0.1"], {"level": 0.1}),
        (["--max-k", "6", "--mode", "analyze"], {"max_k": 6, "mode": Mode.ANALYZE}),
        (["--rule", "bh"], {}),
        (["--rule", "bh:0.1"], {"level": 0.1}),
        (["--rule", "bh", "--alpha", "0.1"], {"level": 0.1}),
        (
            ["--rule", "bh:0.1,min_k=3,weights=match", "--temperature", "1"],
            {"level": 0.1, "min_k": 3, "weights": MixingWeights.MATCH, "temperature": 1.0},
        ),
        (
            ["--rule", "bh:0.1,null=pooled,score=logit,on_empty=top_k"],
            {
                "level": 0.1,
                "null": NullName.POOLED,
                "score": ScoreName.LOGIT,
                "on_empty": OnEmpty.TOP_K,
            },
        ),
        # Together with the remembered max_k it is possible.
        (["--rule", "bh:0.1,min_k=9"], {"level": 0.1, "min_k": 9}),
    ],
    ids=str,
)
def test_a_rule_replaces_what_is_remembered_field_by_field(
    arguments: list[str], changes: dict[str, Any], asked: list[WindowOptions], engine: FakeEngine
) -> None:
    assert program.main([*arguments, "--prompt", "Once", "--run", "--quit"]) == 0
    save_settings(Settings(rule=dataclasses.asdict(REMEMBERED)))
    assert run_window(asked[0], lambda: engine) == 0
    assert engine.rule == dataclasses.replace(REMEMBERED, **changes)


@pytest.mark.parametrize(
    ("arguments", "sides"),
    [
        (["--rule", "cut:0.04"], (None, "cut:0.04")),
        (["--rule", "bh:0.05", "--rule", "top-k:12"], (None, "bh:0.05", "top-k:12")),
        (["--rule", "by:0.1", "--no-own"], ("by:0.1",)),
        (
            ["--no-own", *("--rule", "bh", "--rule", "bh:0.1", "--rule", "hc:0.5"),
             "--rule", "entropy:0.8"],
            ("bh", "bh:0.1", "hc:0.5", "entropy:0.8"),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_rules_are_the_sides(
    arguments: list[str],
    sides: tuple[str | None, ...],
    asked: list[WindowOptions],
    desk: Desk,
) -> None:
    assert program.main([*arguments, "--prompt", "Once"]) == 0
    desk.page.settings_panel.show_sides((None, REMEMBERED))
    errand = Errand(desk.window, run=False, save=None, screenshot=None, quit_after=False)
    errand.prepare("Once", asked[0].rules, asked[0].own, {}, None)
    assert desk.page.settings_panel.sides() == tuple(
        None if text is None else parse_rule(text) for text in sides
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rule", "by:0.1", "--alpha", "0.1"], 'and --rule is "by:0.1"; leave --alpha out'),
        (["--rule", "bh:0.1", "--alpha", "0.2"], '"bh:0.1" and --alpha 0.2 contradict each other'),
        (["--rule", "bh:2"], "alpha must lie between 0 and 1"),
        (["--rule", "bh", "--rule", "cut:1", "--max-k", "4"], "--max-k is for a single rule"),
        (["--rule", "bh:0.1", "--rule", "bh:0.1"], "The rule bh:0.1 is given twice"),
        (["--rule", "bh", *["--rule", "cut:1"] * 4], "A comparison has 1 to 4 sides"),
        (["--no-own"], "--no-own leaves no side"),
        (["--rule", "bh:0.1", "compare", "Once"], "--rules before compare is an option of the"),
    ],
    ids=str,
)
def test_sides_that_cannot_be_are_refused_at_the_start(
    arguments: list[str],
    sentence: str,
    asked: list[WindowOptions],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said.splitlines()[-1]
    assert asked == []


def test_a_command_has_a_rule_of_its_own(asked: list[WindowOptions]) -> None:
    arguments = program.build_parser().parse_args(["compare", "Once", "--rule", "top-k:5"])
    assert [written.text for written in arguments.rules] == ["top-k:5"]
    assert arguments.window_rules is None


@pytest.mark.parametrize(
    "text",
    [
        *(entry.example_text for entry in CATALOGUE.values()),
        "bh:0.1,null=pooled,weights=match,mode=analyze,on_empty=top_k,temperature=2",
        "cut:-1.5,score=logit", "top-k:12", "storey:0.2,score=output,max_k=12",
        "bh:" + "/".join(["0.05"] * 16),
    ],
)  # fmt: skip
def test_the_form_holds_every_rule(desk: Desk, text: str) -> None:
    panel = desk.page.settings_panel
    rule = parse_rule(text)
    panel.show_sides((None, rule))
    assert panel.sides() == (None, rule)
    assert panel.rule_form.rule() == rule
    assert panel.problem == ""


def test_another_rule_begins_with_its_example(desk: Desk) -> None:
    panel = desk.page.settings_panel
    for entry in CATALOGUE.values():
        panel.rule_form.name.set_value(entry.name)
        rule = panel.sides()[1]
        assert rule is not None
        assert (rule.rule, rule.level) == (entry.name, entry.example)
        assert panel.problem == ""
    panel.rule_form.name.set_value("own")
    assert panel.sides() == (None, None)
    assert panel.problem == "The model's own routing is given twice; give each once."


def test_sides_are_added_chosen_and_removed(desk: Desk, qtbot: QtBot) -> None:
    panel = desk.page.settings_panel
    sides = panel.side_list
    for count in (3, 4):
        qtbot.mouseClick(sides.add_button, Qt.MouseButton.LeftButton)
        assert len(panel.sides()) == count
        assert panel.problem == ""
        assert sides.current == count - 1
    assert sides.add_button.isHidden()
    qtbot.mouseClick(sides.rows[1].button, Qt.MouseButton.LeftButton)
    assert panel.rule_form.rule() == RuleParameters()
    panel.rule_form.level.setValue(0.2)
    assert panel.sides()[1] == RuleParameters(level=0.2)
    others = panel.sides()[2:]
    qtbot.mouseClick(sides.rows[1].remove, Qt.MouseButton.LeftButton)
    assert panel.sides() == (None, *others)
    assert panel.rule_form.rule() == others[0]
    for _ in range(2):
        sides.remove(0)
    assert panel.sides() == others[1:]
    assert not sides.rows[0].remove.isEnabled()


def test_sides_are_added_removed_and_reached_by_keys(desk: Desk, qtbot: QtBot) -> None:
    window, panel = desk.window, desk.page.settings_panel
    actions = window.actions_
    qtbot.keyClick(window, Qt.Key.Key_T, Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(window, Qt.Key.Key_T, Qt.KeyboardModifier.ControlModifier)
    assert len(panel.sides()) == 4
    assert not actions.add_side.isEnabled()
    for left in (3, 2, 1):
        qtbot.keyClick(window, Qt.Key.Key_W, Qt.KeyboardModifier.ControlModifier)
        assert len(panel.sides()) == left
    assert not actions.remove_side.isEnabled()
    panel.show_sides((None, RuleParameters()))
    desk.finished_run(3)
    assert [action.isVisible() for action in actions.sides] == [True, True, False, False]
    qtbot.keyClick(window, Qt.Key.Key_2, Qt.KeyboardModifier.AltModifier)
    assert desk.second.text.hasFocus()


def test_a_run_with_a_new_seed(desk: Desk, qtbot: QtBot) -> None:
    first = desk.start("Once")
    desk.engine.finish()
    qtbot.keyClick(desk.window, Qt.Key.Key_R, Qt.KeyboardModifier.ControlModifier)
    again = desk.engine.run
    assert again is not first
    assert again.generation.seed != first.generation.seed
    assert dataclasses.replace(again.generation, seed=first.generation.seed) == first.generation
    assert again.sides == first.sides
    desk.engine.finish()
    desk.page.settings_panel.decoding.set_value("greedy")
    assert not desk.window.actions_.reseed.isEnabled()


@pytest.mark.parametrize("text", [entry.example_text for entry in CATALOGUE.values()])
def test_a_session_of_any_rule_is_shown_and_named(desk: Desk, tmp_path: Path, text: str) -> None:
    rule = parse_rule(f"{text},mode=analyze")
    session = dataclasses.replace(desk.finished_run(5), sides=(None, rule))
    path = tmp_path / "run.bhsession"
    save_session(session, path)
    assert desk.open(path)
    desk.page.clock.flush()
    shown = desk.session.sides.all_runs[1]
    assert shown.token_count == 5
    assert shown.about is not None
    assert f"{rule.level_text}, 1 to 8 of 64" in shown.about.routing
    assert f"what {'BH' if rule.rule == 'bh' else f'{text},mode=analyze'} would have" in shown.note
    assert ("max_k" in desk.page.differences.lines[0].text()) is (rule.rule != "entropy")
    assert desk.page.settings_panel.sides() == (None, rule)
    assert desk.window.errors.failure is None


def test_four_sides_are_run_saved_and_opened(desk: Desk, tmp_path: Path) -> None:
    texts = ("bh:0.05", "top-k:" + "/".join(["5"] * 16), "entropy:0.8")
    sides = (None, *map(parse_rule, texts))
    panel = desk.page.settings_panel
    panel.show_sides(sides)
    desk.page.prompt.set_prompt("Once")
    desk.window.actions_.run.trigger()
    desk.engine.begin()
    assert desk.engine.run.sides == sides
    for word in (" a", " b"):
        for side in range(4):
            desk.engine.token(
                side, word if side < 2 else f"{word}{side}", *desk.engine.random_counts()
            )
    desk.page.clock.flush()
    assert [shown.text.toPlainText() for shown in desk.page.answers.shown] == [
        "Once a b", "Once a b", "Once a2 b2", "Once a3 b3",
    ]  # fmt: skip
    assert [shown.difference.text() for shown in desk.page.answers.shown[1:]] == [
        "As A for 2 tokens", "Differs from A at 0", "Differs from A at 0",
    ]  # fmt: skip
    desk.engine.finish()
    desk.settle()
    assert desk.save(tmp_path / "four.bhsession")
    texts_before = [line.text() for line in desk.page.differences.lines]
    panel.show_sides((None, RuleParameters()))
    desk.finished_run(3)
    assert [shown.isHidden() for shown in desk.page.answers.panels] == [False, False, True, True]
    assert desk.open(tmp_path / "four.bhsession")
    desk.page.clock.flush()
    assert panel.sides() == sides
    assert not any(shown.isHidden() for shown in desk.page.answers.panels)
    assert [line.text() for line in desk.page.differences.lines] == texts_before
