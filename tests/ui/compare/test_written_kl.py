"""KL to A of answers: measured when it is looked at, up to where they part, or greyed with why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication

from bh_studio.engine.protocol.events import JobCancelled, KlMeasured, Waiting
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.requests import MeasureKl
from bh_studio.engine.records.session import Session
from bh_studio.engine.rules import RuleParameters, parse_rule
from bh_studio.settings import Settings
from bh_studio.ui.charts.divergence_chart import DivergenceChart
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.tints.tint import KL
from tests.fake_engine import MODEL
from tests.ui.conftest import Desk

BH, CUT, OTHER = RuleParameters(), parse_rule("cut:0.04"), parse_rule("top-k:3")
READING = "No tint yet: the answers are read again"


def asked(desk: Desk) -> list[MeasureKl]:
    return [body for body in desk.engine.requests if isinstance(body, MeasureKl)]


def entry(desk: Desk) -> QAction:
    menu = desk.page.differences.tint_menu
    menu.refresh()
    (action,) = (action for action in menu.actions() if action.data() == "kl")
    return action


def answer(desk: Desk, *sides: list[str], rules: tuple[RuleParameters, ...] = (BH,)) -> Session:
    """A run in which each side says its words."""
    desk.page.prompt.set_prompt("Once")
    desk.page.settings_panel.show_sides((None, *rules))
    desk.window.actions_.run.trigger()
    for index in range(max(map(len, sides))):
        for side, words in enumerate(sides):
            if index < len(words):
                desk.engine.token(side, words[index], 8 - side)
    session = desk.engine.finish()
    desk.settle()
    return session


def turn(desk: Desk) -> None:
    """What is to be asked for is asked for, and what was owed is painted."""
    for _ in range(3):
        QApplication.processEvents()
    desk.page.clock.flush()


def look(desk: Desk) -> None:
    """Choose the tint."""
    entry(desk).trigger()
    turn(desk)


def tinted(desk: Desk, side: int, values: list[float]) -> bool:
    """Whether the tokens of a side have the colours of `values`, and nan is left plain."""
    view, surface = desk.page.answers.panels[side].text, desk.theme.colors.surface
    scale = KL.scale(RunModel("B"))
    expected = [surface if np.isnan(value) else scale.tint(value, surface) for value in values]
    return [view.tint_of(index) for index in range(view.token_count)] == expected


# --- what is asked, and shown --------------------------------------------------------------------


def test_answers_are_tinted_up_to_the_first_difference(desk: Desk) -> None:
    session = answer(desk, [" a", " b", " c", " d"], [" a", " b", " x", " d"])
    turn(desk)
    assert asked(desk) == []
    line = desk.page.differences
    assert entry(desk).isEnabled()
    look(desk)
    first = session.records[0]
    # Of A's own answer, up to the token that is another one in B.
    assert asked(desk) == [MeasureKl(MODEL, (None, BH), (1, 2, 3), first.token_ids[:3])]
    assert line.tint_problem.text() == READING
    assert "reading the shared beginning of the answers" in line.tint_problem.toolTip()
    assert tinted(desk, 1, [np.nan] * 4)
    desk.engine.measure_kl([0.002, 0.2, 0.5])
    desk.page.clock.flush()
    assert not line.tint_problem.isVisible()
    assert tinted(desk, 0, [0.0] * 4)
    assert tinted(desk, 1, [0.002, 0.2, 0.5, np.nan])
    turn(desk)
    assert len(asked(desk)) == 1


def test_the_legend_and_hovering_say_where_it_ends(desk: Desk) -> None:
    desk.window.resize(1920, 1080)
    answer(desk, [" a", " b", " c", " d"], [" a", " b", " x", " d"])
    look(desk)
    assert not desk.page.differences.legend.isVisible()
    desk.engine.measure_kl([0.002, 0.2, 0.5])
    desk.page.clock.flush()
    legend, first, second = desk.page.differences.legend, desk.first.text, desk.second.text
    assert legend.isVisible()
    assert "up to the first token that is not A's" in legend.toolTip()
    assert second.describe(2).splitlines()[1] == "KL to side A: 0.5000 nats"
    assert second.describe(3).splitlines()[1] == (
        "No KL to side A after token 2: the sides have not read the same there."
    )
    # What each side makes of a token is told wherever it is pointed at.
    assert first.describe(1).splitlines()[-1] == "B: KL to A 0.2000"
    assert "KL to A" not in first.describe(3)
    assert first.describe(3).splitlines()[1] == "KL to side A: 0.0000 nats"


def test_each_side_is_shown_up_to_its_own_difference(desk: Desk) -> None:
    words = [" a", " b", " c", " d"]
    session = answer(
        desk, words, [" x", " b", " c", " d"], words, [" a", " b", " c", " y"],
        rules=(BH, CUT, OTHER),
    )  # fmt: skip
    look(desk)
    (question,) = asked(desk)
    assert question.sides == (None, BH, CUT, OTHER)
    assert question.token_ids == session.records[0].token_ids
    desk.engine.measure_kl([0.1, 0.9, 0.9, 0.9], [0.2, 0.3, 0.4, 0.5], [0.3, 0.0, 0.01, 0.7])
    desk.page.clock.flush()
    assert tinted(desk, 1, [0.1, np.nan, np.nan, np.nan])
    assert tinted(desk, 2, [0.2, 0.3, 0.4, 0.5])
    assert tinted(desk, 3, [0.3, 0.0, 0.01, 0.7])
    assert desk.first.text.describe(0).splitlines()[-3:] == [
        "B: KL to A 0.1000", "C: KL to A 0.2000", "D: KL to A 0.3000"
    ]  # fmt: skip


def test_of_answers_of_different_lengths_what_both_have_is_measured(desk: Desk) -> None:
    answer(desk, [" a", " b"], [" a", " b", " c"])
    look(desk)
    assert len(asked(desk)[0].token_ids) == 2
    desk.engine.measure_kl([0.1, 0.2])
    desk.page.clock.flush()
    assert tinted(desk, 1, [0.1, 0.2, np.nan])


def test_what_is_chosen_before_is_measured_when_the_run_has_ended(desk: Desk) -> None:
    look(desk)
    desk.start()
    desk.say([" a", " b"], [" a", " x"])
    turn(desk)
    line = desk.page.differences
    assert entry(desk).isEnabled()
    assert "When the run has ended" in entry(desk).toolTip()
    assert line.tint_problem.text() == "No tint yet: the run goes on"
    assert asked(desk) == []
    desk.engine.finish()
    turn(desk)
    assert len(asked(desk)) == 1
    desk.engine.measure_kl([0.1, 0.2])
    desk.page.clock.flush()
    assert tinted(desk, 1, [0.1, 0.2])
    assert not line.tint_problem.isVisible()


def test_what_was_stopped_or_broke_off_is_measured_too(desk: Desk) -> None:
    desk.start()
    desk.say([" a", " b"], [" a", " x"])
    desk.engine.fail()
    look(desk)
    assert asked(desk)[0].prompt_token_ids == (1, 2, 3)
    desk.engine.measure_kl([0.1, 0.2])
    desk.page.clock.flush()
    assert tinted(desk, 1, [0.1, 0.2])


def test_a_text_that_all_read_is_not_read_again(desk: Desk) -> None:
    desk.page.prompt.mode.read_button.click()
    desk.page.prompt.set_prompt("Once upon a time")
    desk.window.actions_.run.trigger()
    desk.engine.finish_text()
    desk.settle()
    turn(desk)
    assert desk.page.tinting.current is KL
    assert asked(desk) == []
    assert desk.second.text.describe(1).splitlines()[-1].startswith("B: p ")


# --- what is given up ----------------------------------------------------------------------------


def test_another_run_drops_it(desk: Desk) -> None:
    answer(desk, [" a", " b"], [" a", " x"])
    look(desk)
    job = desk.engine.job_of(MeasureKl)
    desk.start()
    assert job in desk.engine.cancelled
    desk.say([" a", " c", " d"], [" a", " c", " x"])
    # It may have been done by then, or end as it was asked to.
    desk.engine.report(KlMeasured(np.array([[0.0, 0.0], [0.7, 0.7]])), job)
    desk.page.clock.flush()
    assert all(run.kl is None for run in desk.session.sides.runs)
    desk.engine.finish()
    turn(desk)
    assert [len(question.token_ids) for question in asked(desk)] == [2, 3]
    desk.engine.measure_kl([0.1, 0.2, 0.3])
    desk.page.clock.flush()
    assert tinted(desk, 1, [0.1, 0.2, 0.3])


def test_a_run_that_is_refused_lets_it_be_asked_for_again(desk: Desk) -> None:
    answer(desk, [" a", " b"], [" a", " x"])
    look(desk)
    job = desk.engine.job_of(MeasureKl)
    desk.page.start()
    # The run need not wait until it is accepted.
    assert job in desk.engine.cancelled
    behind = desk.engine.job_of(Comparison)
    desk.engine.report(Waiting(job), behind)
    assert desk.page.obstacle() == "The run begins when the answers before have been read."
    turn(desk)
    assert len(asked(desk)) == 1
    desk.engine.report(JobCancelled(), job)
    desk.engine.fail("The prompt is too long.", behind)
    turn(desk)
    assert len(asked(desk)) == 2
    desk.engine.measure_kl([0.1, 0.2])
    desk.page.clock.flush()
    assert tinted(desk, 1, [0.1, 0.2])


def test_a_session_that_is_opened_drops_it_and_is_measured_itself(
    desk: Desk, tmp_path: Path
) -> None:
    answer(desk, [" a", " b", " c"], [" a", " b", " x"])
    assert desk.save(tmp_path / "three.bhsession")
    answer(desk, [" a", " b"], [" a", " x"])
    look(desk)
    job = desk.engine.job_of(MeasureKl)
    assert desk.open(tmp_path / "three.bhsession")
    turn(desk)
    assert job in desk.engine.cancelled
    assert [len(question.token_ids) for question in asked(desk)] == [2, 3]
    desk.engine.report(KlMeasured(np.array([[0.0, 0.0], [0.7, 0.7]])), job)
    desk.engine.measure_kl([0.1, 0.2, 0.3])
    desk.page.clock.flush()
    assert tinted(desk, 1, [0.1, 0.2, 0.3])


def test_an_engine_that_comes_anew_is_asked_anew(desk: Desk) -> None:
    answer(desk, [" a", " b"], [" a", " x"])
    look(desk)
    desk.model.jobs.attach(None)
    desk.model.jobs.attach(desk.engine)
    turn(desk)
    assert len(asked(desk)) == 2


# --- what stands in its way ----------------------------------------------------------------------


def obstacle_of(desk: Desk) -> str:
    """Why it is greyed; it is, and nothing was asked."""
    desk.page.tinting.choose("kl")
    turn(desk)
    assert asked(desk) == []
    action, problem = entry(desk), desk.page.differences.tint_problem
    assert not action.isEnabled()
    assert problem.isVisible()
    assert problem.text().startswith("No tint: ")
    assert action.toolTip() in problem.toolTip()
    return f"{problem.text().removeprefix('No tint: ')}. {action.toolTip()}"


def show(desk: Desk, session: Session) -> None:
    desk.session.show_session(session)
    desk.page.tinting.choose("kl")
    desk.page.clock.flush()


def test_one_side_has_nothing_to_be_compared_with(desk: Desk) -> None:
    answer(desk, [" a", " b"], rules=())
    assert obstacle_of(desk) == ("no other side. No other side has answered to compare with A.")


def test_without_its_model_it_is_greyed_until_that_is_there(desk: Desk) -> None:
    answer(desk, [" a", " b"], [" a", " x"])
    desk.model.unload()
    desk.engine.unload()
    desk.page.tinting.choose("kl")
    words = (
        "its model is not loaded. KL to A is measured with the model of the run: load "
        "olmoe-nano in float32."
    )
    assert obstacle_of(desk) == words
    desk.engine.model = dataclasses.replace(MODEL, fingerprint="0" * 64, name="another")
    desk.model.load("another")
    turn(desk)
    assert desk.page.differences.tint_problem.text() == "No tint yet: a model is loading"
    desk.engine.finish_load()
    assert obstacle_of(desk) == words
    desk.engine.model = MODEL
    desk.load()
    turn(desk)
    assert len(asked(desk)) == 1
    desk.engine.measure_kl([0.1, 0.2])
    desk.page.clock.flush()
    assert tinted(desk, 1, [0.1, 0.2])
    # What is known stays, whatever is loaded.
    desk.model.unload()
    desk.engine.unload()
    turn(desk)
    assert tinted(desk, 1, [0.1, 0.2])
    assert entry(desk).isEnabled()


def test_a_null_of_its_own_is_needed_by_a_rule_that_tests(desk: Desk) -> None:
    session = answer(desk, [" a", " b"], [" a", " x"])
    other = dataclasses.replace(MODEL, null_sha256="1" * 64)
    show(desk, dataclasses.replace(session, model=other))
    assert obstacle_of(desk).startswith("its null is not loaded. The rules of this run")
    show(desk, dataclasses.replace(session, model=other, sides=(None, CUT)))
    turn(desk)
    assert [question.sides for question in asked(desk)] == [(None, CUT)]


def test_sides_of_different_turns_cannot_be_compared(desk: Desk) -> None:
    session = answer(desk, [" a", " b"], [" a", " x"])
    first, other = session.records
    longer = dataclasses.replace(
        other,
        prompt_token_ids=(1, 2, 3, 4),
        prompt_expert_counts=np.full((3, 16), 5, np.uint8),
        prompt_raw_counts=np.full((3, 16), 5, np.uint8),
    )
    show(desk, dataclasses.replace(session, records=(first, longer)))
    assert obstacle_of(desk).startswith("different earlier turns. Each side has read")
    # Those that have read the same are compared all the same.
    three = dataclasses.replace(session, sides=(None, BH, CUT), records=(first, longer, other))
    show(desk, three)
    turn(desk)
    assert len(asked(desk)) == 1
    desk.engine.measure_kl([0.7, 0.7], [0.1, 0.2])
    desk.page.clock.flush()
    assert tinted(desk, 1, [np.nan, np.nan])
    assert tinted(desk, 2, [0.1, 0.2])
    words = desk.second.text.describe(0).splitlines()
    assert words[1] == "No KL to side A: it has read another prompt."
    assert words[-1] == "C: KL to A 0.1000"


def test_a_failure_is_said_and_tried_again_with_the_next_model(desk: Desk) -> None:
    answer(desk, [" a", " b"], [" a", " x"])
    look(desk)
    desk.engine.fail("These answers have a token that the loaded model lacks.")
    turn(desk)
    problem = desk.page.differences.tint_problem
    assert problem.text() == "No tint: could not be read"
    assert "a token that the loaded model lacks. Close other programs." in problem.toolTip()
    assert not entry(desk).isEnabled()
    # It is said where it was looked for, and not above everything else.
    assert desk.window.errors.failure is None
    turn(desk)
    assert len(asked(desk)) == 1
    desk.load()
    turn(desk)
    assert len(asked(desk)) == 2


def test_it_is_remembered_and_asks_nothing_before_there_are_answers(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(Settings(tint="kl"), show=True)
    desk.load()
    turn(desk)
    assert desk.page.tinting.current is KL
    assert not desk.page.differences.tint_problem.isVisible()
    assert [type(body) for body in desk.engine.requests if isinstance(body, MeasureKl)] == []


# --- the chart -----------------------------------------------------------------------------------


def test_the_chart_has_it_measured_while_it_is_on_screen(desk: Desk) -> None:
    answer(desk, [f" w{n}" for n in range(40)], [f" {'w' if n < 3 else 'x'}{n}" for n in range(40)])
    slot = desk.slots[1]
    slot.pick(DivergenceChart)
    assert slot.words.startswith("All sides are reading the shared beginning of the answers")
    turn(desk)
    assert [len(question.token_ids) for question in asked(desk)] == [4]
    desk.engine.measure_kl([0.1, 0.2, 0.3, 0.6])
    desk.page.clock.flush()
    assert not slot.is_empty
    chart = slot.chart
    assert isinstance(chart, DivergenceChart)
    assert chart.drawn_values == ((0.1, 0.2, 0.3, 0.6),)
    assert slot.readout == "Mean KL to A, nats: B 0.3000 up to token 3"
    assert chart.describe(3, 0) == "Token 3: B 0.6000 nats “ x3”"
    # There is no room left empty for what cannot be compared.
    assert chart.plot.getPlotItem().vb.viewRange()[0][1] < 17
    desk.session.selection.select(1, 20)
    chart.choose(2, 0)
    assert desk.session.selection.place == (1, 2, None)
    assert chart.numbers().values.tolist() == [[0.1], [0.2], [0.3], [0.6]]
    # The tint needs no second reading.
    look(desk)
    assert len(asked(desk)) == 1


def test_a_chart_that_is_not_on_screen_asks_nothing(desk: Desk) -> None:
    slot = desk.slots[1]
    slot.pick(DivergenceChart)
    desk.window.actions_.charts.trigger()
    assert not slot.isVisible()
    answer(desk, [" a", " b"], [" a", " x"])
    turn(desk)
    assert asked(desk) == []
    desk.window.actions_.charts.trigger()
    turn(desk)
    assert len(asked(desk)) == 1


def test_the_chart_says_what_stands_in_its_way(desk: Desk) -> None:
    slot = desk.slots[0]
    slot.pick(DivergenceChart)
    desk.start()
    desk.say([" a", " b"], [" a", " x"])
    assert slot.words.startswith("When the run has ended,")
    desk.engine.finish()
    desk.settle()
    turn(desk)
    assert "reading the shared beginning" in slot.words
    desk.engine.fail("There is not enough memory for this.")
    turn(desk)
    assert slot.words == "There is not enough memory for this. Close other programs."


def test_what_was_frozen_before_stays_as_it_was(desk: Desk) -> None:
    answer(desk, [" a", " b"], [" a", " x"])
    slot = desk.slots[1]
    slot.freeze.setChecked(True)
    slot.pick(DivergenceChart)
    turn(desk)
    assert len(asked(desk)) == 1
    desk.engine.measure_kl([0.1, 0.2])
    desk.page.clock.flush()
    assert slot.words == "When this was frozen, KL to A was not known."
    # Of another run there is nothing to ask.
    answer(desk, [" a", " b"], [" a", " x"])
    turn(desk)
    assert len(asked(desk)) == 1
    slot.freeze.setChecked(False)
    turn(desk)
    assert len(asked(desk)) == 2


def test_one_token_is_drawn_too(desk: Desk) -> None:
    desk.start()
    desk.say([" a", " b"], [" x", " y"])
    desk.engine.finish()
    desk.page.tinting.choose("kl")
    slot = desk.slots[1]
    slot.pick(DivergenceChart)
    QApplication.processEvents()
    desk.engine.measure_kl([0.02])
    desk.page.clock.flush()
    chart = slot.chart
    assert isinstance(chart, DivergenceChart)
    assert chart.drawn_values == ((0.02,),)
    with chart.unframed():
        drawn = chart.plot.grab().toImage()
        for item in chart.plot.getPlotItem().curves:
            item.setVisible(False)
        assert chart.plot.grab().toImage() != drawn


def test_where_side_a_has_no_token_it_is_said_of_that(desk: Desk) -> None:
    desk.start()
    desk.engine.token(1, " a", 8)
    desk.engine.finish()
    obstacle = desk.page.written_kl.obstacle()
    assert obstacle is not None
    assert obstacle.words == "side A has no token"
