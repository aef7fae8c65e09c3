"""What is asked about the selected token, in which order, and what is made of the answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bh_studio.engine.errors import InputError
from bh_studio.engine.execution import recorded_routing
from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.protocol.requests import InspectToken, LoadModel, ReplaySide
from bh_studio.engine.records.decisions.token_inspection import InspectedToken
from bh_studio.engine.records.recording import RecordedLogits
from bh_studio.engine.rules import RuleParameters, parse_rule
from bh_studio.ui.state.inspection.inspection_model import REST_MS
from tests.ui.charts.null_fits import recording
from tests.ui.inspector.conftest import CUT, Bench

WORDS = [f" word{number}" for number in range(6)]


def counts(token: InspectedToken | None) -> list[int]:
    assert token is not None
    return [layer.count for layer in token.layers]


def test_the_selected_token_is_asked_about_while_the_answer_is_written(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS[:2])
    bench.selection.select(1, 1, 3)
    bench.settle()
    token = bench.inspection.token
    assert token is not None
    assert (token.rule, token.position, bench.inspection.layer) == (CUT, 3, 3)
    bench.say(WORDS[2:])
    bench.settle()
    assert len(bench.asked) == 1
    bench.finish()
    assert bench.inspection.token is token


def test_the_prompt_is_asked_about_by_how_far_it_is_before_the_answer(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS)
    bench.selection.select(0, -2)
    bench.settle()
    token = bench.inspection.token
    assert token is not None
    assert (token.rule, token.position) == (None, 0)
    bench.selection.select(0, -3)
    assert bench.inspection.token is None
    assert bench.inspection.problem == ("The prompt of side A has only 2 positions before that.")


def test_between_the_first_and_the_last_that_are_selected_nothing_is_asked(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS)
    for number in range(len(WORDS)):
        bench.selection.select(1, number)
    bench.settle()
    assert [body.position for body in bench.asked if isinstance(body, InspectToken)] == [2, 7]
    assert bench.inspection.token is not None
    assert bench.inspection.token.position == 7


def test_nothing_is_asked_while_nobody_watches(bench: Bench) -> None:
    bench.inspection.watch(False)
    bench.start()
    bench.say(WORDS)
    bench.selection.select(1, 0)
    assert bench.asked == []
    bench.inspection.watch(True)
    bench.settle()
    assert bench.inspection.token is not None


def test_a_token_that_a_side_has_not_said_yet_is_asked_about_when_it_comes(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS[:2])
    bench.selection.select(1, 2)
    assert bench.inspection.problem == "Waiting until side B comes to token 2."
    bench.say(WORDS[2:])
    bench.settle()
    assert bench.inspection.problem == ""
    assert bench.inspection.token is not None


def test_a_token_that_never_comes_is_no_longer_waited_for(bench: Bench) -> None:
    bench.start()
    bench.selection.select(1, -1)
    assert bench.inspection.problem == "Waiting until side B has read its prompt."
    bench.selection.select(1, 2)
    bench.say(WORDS[:2])
    assert bench.inspection.problem == "Waiting until side B comes to token 2."
    bench.finish()
    assert bench.inspection.problem == "Side B has no token 2; it has said 2."


def test_without_logits_the_engine_s_sentence_says_so(bench: Bench) -> None:
    bench.engine.keeps_logits = False
    bench.start()
    bench.say(WORDS)
    bench.selection.select(1, 0)
    bench.settle()
    assert bench.inspection.token is None
    assert "no router logits" in bench.inspection.problem


def test_a_level_is_tried_at_once_and_on_the_whole_run_after_a_rest(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS)
    bench.finish()
    bench.selection.select(1, 0)
    bench.settle()
    stored = counts(bench.inspection.token)
    bench.inspection.try_level(0.2)
    bench.settle()
    tried = counts(bench.inspection.what_if)
    assert np.less_equal(tried, stored).all()
    assert tried != stored
    assert [type(body) for body in bench.asked] == [InspectToken, InspectToken]
    bench.qtbot.waitUntil(lambda: bench.inspection.run_mean is not None)
    asked = bench.asked[-1]
    assert isinstance(asked, ReplaySide)
    assert asked.rule == parse_rule("cut:0.2")
    assert bench.inspection.run_mean == pytest.approx(asked_mean(bench))


def asked_mean(bench: Bench) -> float:
    """Experts that reach 0.2, at least one, at each position that predicted a token."""
    logits = bench.runs[1].router_logits
    assert logits is not None
    values = np.exp(logits.rows(2, 8).astype(np.float64))
    reach = (values / values.sum(-1, keepdims=True) >= 0.2).sum(-1)
    return float(np.maximum(reach, 1).mean())


def test_back_at_the_stored_level_all_is_as_stored(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS)
    bench.finish()
    bench.selection.select(1, 0)
    bench.settle()
    token = bench.inspection.token
    bench.inspection.try_level(0.2)
    bench.settle()
    bench.inspection.try_level(0.04)
    assert (bench.inspection.level, bench.inspection.what_if) == (None, None)
    assert bench.inspection.token is token
    bench.qtbot.wait(2 * REST_MS)
    assert not any(isinstance(body, ReplaySide) for body in bench.asked)


def test_a_tried_level_stays_from_token_to_token_of_one_side(bench: Bench) -> None:
    bench.start((None, CUT, parse_rule("top-p:0.5")))
    bench.say(WORDS)
    bench.finish()
    bench.selection.select(1, 0)
    bench.inspection.try_level(0.2)
    bench.selection.select(1, 4)
    bench.settle()
    what_if = bench.inspection.what_if
    assert what_if is not None
    assert (what_if.position, what_if.rule) == (6, parse_rule("cut:0.2"))
    bench.selection.select(2, 4)
    assert (bench.inspection.level, bench.inspection.what_if) == (None, None)


def test_the_whole_run_is_tried_once_it_has_ended(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS)
    bench.selection.select(1, 0)
    bench.inspection.try_level(0.2)
    bench.qtbot.wait(2 * REST_MS)
    assert bench.inspection.run_mean is None
    bench.finish()
    bench.qtbot.waitUntil(lambda: bench.inspection.run_mean is not None)


def test_there_is_no_level_to_try_of_the_model_s_own_and_of_a_level_a_layer(bench: Bench) -> None:
    of_layers = parse_rule("top-k:" + "/".join(["5"] * 16))
    bench.start((None, of_layers))
    bench.say(WORDS)
    for side in range(2):
        bench.selection.select(side, 0)
        bench.inspection.try_level(3.0)
        assert bench.inspection.level is None


def test_a_level_that_cannot_be_tried_says_why(bench: Bench) -> None:
    bench.start((None, parse_rule("top-k:5")))
    bench.say(WORDS)
    bench.selection.select(1, 0)
    bench.inspection.try_level(65.0)
    bench.settle()
    assert "k must not exceed the 64 experts" in bench.inspection.what_if_problem
    assert bench.inspection.token is not None
    bench.inspection.try_level(6.0)
    bench.settle()
    assert bench.inspection.what_if_problem == ""


@pytest.mark.parametrize("is_answered", [True, False])
def test_what_could_not_be_known_is_asked_again_when_a_model_is_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_answered: bool
) -> None:
    def found(_: object, calibration: Path | None) -> RecordedLogits:
        if calibration is None:
            raise InputError("The null is not here.", "Load that model once.")
        return recording().arrays

    monkeypatch.setattr(recorded_routing, "session_recording", found)
    bench.start((None, RuleParameters()))
    bench.say(WORDS)
    bench.finish()
    bench.selection.select(1, 0)
    if is_answered:
        bench.settle()
        assert bench.inspection.problem == "The null is not here. Load that model once."
    # The model that brings the null comes after the answer, or before it.
    bench.load(LoadModel(calibration=Path("null.npz")))
    bench.settle()
    assert bench.inspection.problem == ""
    assert bench.inspection.token is not None


def test_a_new_run_and_a_lost_one_leave_nothing_behind(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS)
    bench.finish()
    bench.selection.select(1, 0)
    bench.inspection.try_level(0.2)
    bench.settle()
    bench.start()
    assert (bench.inspection.token, bench.inspection.level) == (None, None)
    bench.say(WORDS[:1])
    bench.engine.report(Failed("Out of memory.", "", ""))
    bench.selection.select(1, 0)
    bench.settle()
    assert bench.inspection.token is not None


def test_an_answer_about_what_is_no_longer_selected_is_dropped(bench: Bench) -> None:
    bench.start()
    bench.say(WORDS)
    bench.selection.select(1, 0)
    bench.selection.clear()
    bench.settle()
    assert (bench.inspection.token, bench.inspection.problem) == (None, "")


def test_sides_that_became_fewer_while_nobody_watches_are_not_asked_about(bench: Bench) -> None:
    bench.start()
    bench.say([" a"])
    bench.finish()
    bench.selection.select(1, 0)
    assert bench.inspection.run is bench.runs[1]
    bench.inspection.watch(False)
    bench.start((None,))
    assert bench.inspection.run is None
