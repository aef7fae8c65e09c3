"""What the command line says of the window's rule, and sessions of rules it has no form for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication

from bh_studio import __main__ as program
from bh_studio.app import WindowOptions, run_window
from bh_studio.engine.records.session_file import save_session
from bh_studio.engine.rules import CATALOGUE, MixingWeights, Mode, RuleParameters, parse_rule
from bh_studio.settings import Settings, save_settings
from bh_studio.ui.state.shown_rule import rule_problem
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
        # The defaults of what the page does not show may be said.
        (["--rule", "bh:0.1,null=discarded,score=probability,on_empty=min_k"], {"level": 0.1}),
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
    ("arguments", "sentence"),
    [
        (["--rule", "top-k:5"], "The window has no control for rule=top-k: it knows bh"),
        (["--rule", "bh,null=pooled"], "no control for null=pooled"),
        (["--rule", "bh,score=logit"], "no control for score=logit"),
        (["--rule", "bh,on_empty=top_k"], "no control for on_empty=top_k"),
        (["--rule", "bh:0.1/0.2"], "no control for a level for each layer"),
        (["--rule", "by:0.1,null=all"], "no control for rule=by, null=all"),
        (["--rule", "by:0.1", "--alpha", "0.1"], 'and --rule is "by:0.1"; leave --alpha out'),
        (["--rule", "bh:0.1", "--alpha", "0.2"], '"bh:0.1" and --alpha 0.2 contradict each other'),
        (["--rule", "bh:2"], "alpha must lie between 0 and 1"),
        (["--rule", "bh:0.1", "compare", "Once"], "--rule before compare is an option of the"),
    ],
    ids=str,
)
def test_a_rule_that_the_window_cannot_show_is_refused_at_the_start(
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
    assert arguments.window_rule is None


def test_the_page_holds_what_it_is_said_to_hold(desk: Desk) -> None:
    panel = desk.page.settings_panel
    for rule in (REMEMBERED, RuleParameters(mode=Mode.ANALYZE, weights=MixingWeights.MATCH)):
        assert rule_problem(dataclasses.asdict(rule)) == ""
        panel.show_rule(rule)
        assert panel.rule() == rule
    for text in ("top-k:5", "bh:0.1,null=pooled", "bh:0.1,score=logit", "bh:0.1,on_empty=top_k"):
        assert rule_problem(dataclasses.asdict(parse_rule(text)))
        panel.show_rule(parse_rule(text))
        assert panel.rule() != parse_rule(text)


@pytest.mark.parametrize("text", [entry.example_text for entry in CATALOGUE.values()])
def test_a_session_of_any_rule_is_shown_and_named(desk: Desk, tmp_path: Path, text: str) -> None:
    rule = parse_rule(f"{text},mode=analyze")
    session = dataclasses.replace(desk.finished_run(5), sides=(None, rule))
    path = tmp_path / "run.bhsession"
    save_session(session, path)
    assert desk.open(path)
    desk.page.clock.flush()
    shown = desk.session.bh
    assert shown.token_count == 5
    limits = [figure.text for figure in (desk.page.statistics.at_min, desk.page.statistics.at_max)]
    assert (limits == ["–", "–"]) is (rule.rule == "entropy")
    failure = desk.window.errors.failure
    if rule.rule == "bh":
        assert shown.routing == "alpha 0.05, 1 to 8 of 64 in each layer"
        assert "what BH would have used" in shown.note
        assert failure is None or not desk.window.errors.isVisible()
    else:
        assert shown.routing.startswith(f"{rule.rule}: {rule.level_text}, 1 to 8 of 64")
        assert f"what {text},mode=analyze would have used" in shown.note
        assert failure is not None
        assert f"The controls cannot hold every value: rule {rule.rule} became bh" in (
            failure.message
        )


def test_a_session_with_a_level_a_layer_is_refused_with_the_reason(
    desk: Desk, tmp_path: Path
) -> None:
    before = desk.finished_run(5)
    rule = parse_rule("top-k:" + "/".join(["5"] * 16))
    path = tmp_path / "run.bhsession"
    save_session(dataclasses.replace(before, sides=(None, rule)), path)
    assert not desk.open(path)
    assert desk.session.session is before
    failure = desk.window.errors.failure
    assert failure is not None
    assert "a level for each layer, which this window cannot show" in failure.advice
