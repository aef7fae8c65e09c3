"""The search for a level, on made-up functions: smooth, steps, out of reach, two branches."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiments.budget.level_search import answered as search
from bh_studio.engine.experiments.budget.level_search import loosened
from bh_studio.engine.records.budget import TOLERANCE
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule

SEARCHABLE = ("bh:0.1", "by:0.1", "storey:0.1", "top-p:0.5", "min-p:0.2", "cut:0.1")


def smooth(looseness: float) -> float:
    """From 1 to 8, as the mean experts of a rule."""
    return 1 + 7 / (1 + math.exp(-(looseness + 5) / 2))


def counted(mean: Callable[[float], float]) -> tuple[Callable[[float], float], list[float]]:
    asked: list[float] = []

    def measured(looseness: float) -> float:
        asked.append(looseness)
        return mean(looseness)

    return measured, asked


@given(st.floats(1.1, 7.9), st.floats(-1.0, 1.0), st.floats(0.8, 1.25))
def test_an_estimate_that_is_off_costs_few_passes(target: float, off: float, scale: float) -> None:
    measured, asked = counted(smooth)
    found = search(measured, lambda x: smooth(scale * x + off), target)
    assert found.mean == smooth(found.looseness) == pytest.approx(target, rel=TOLERANCE)
    assert found.passes == len(asked) <= 10


def test_a_good_estimate_takes_one_pass() -> None:
    assert search(smooth, smooth, 4.0).passes == 1


def test_an_estimate_that_knows_nothing_is_survived() -> None:
    found = search(smooth, lambda _: 3.0, 4.0)
    assert found.mean == pytest.approx(4.0, rel=TOLERANCE)


def test_a_step_function_ends_at_its_nearest_step() -> None:
    found = search(lambda x: round(smooth(x) / 0.15) * 0.15, smooth, 4.0)
    assert found.mean == pytest.approx(4.05)
    assert abs(found.mean / 4 - 1) > TOLERANCE


def test_a_step_too_wide_is_refused_with_both_its_sides() -> None:
    with pytest.raises(EngineError, match=r"jumps from 3\.000 to 6\.000"):
        search(lambda x: round(smooth(x) / 3) * 3.0, smooth, 4.0)


@pytest.mark.parametrize("target", [0.5, 9.0])
def test_out_of_reach_is_refused_with_the_range(target: float) -> None:
    with pytest.raises(EngineError, match=r"cannot be reached.* 1\.000 to 8\.000"):
        search(smooth, smooth, target)


def test_of_two_branches_the_rising_one_is_searched() -> None:
    def both(x: float) -> float:  # as with on_empty "top_k": strict levels select nothing
        return max(smooth(x), smooth(-x - 20))

    least = both(-10.0)
    found = search(both, both, 4.0)
    assert found.looseness > -10
    assert found.mean == pytest.approx(4.0, rel=TOLERANCE)
    with pytest.raises(EngineError, match=rf"cannot be reached.* {least:.3f} to 8\.000"):
        search(both, both, 1.2)


@pytest.mark.parametrize("text", SEARCHABLE)
def test_levels_stay_between_0_and_1_and_print_as_they_are(text: str) -> None:
    parameters = parse_rule(text)
    parameters.check_searchable()
    levels = []
    for looseness in (-99.0, -35.0, -12.3, -0.1, 0.0, 0.1, 12.3, 35.0, 99.0):
        at = loosened(parameters, looseness)
        assert isinstance(at.level, float)
        assert 0 < at.level < 1
        assert parse_rule(format_rule(at)) == at
        levels.append(at.level)
    is_rising = text.partition(":")[0] not in ("min-p", "cut")
    assert levels == sorted(levels, reverse=not is_rising)
    assert loosened(parameters, [0.0, 1.0]).level == (
        loosened(parameters, 0.0).level, loosened(parameters, 1.0).level
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hc:0.5", "No level between 0 and 1 sets how many experts the rule hc selects"),
        ("entropy:0.5", "the rule entropy selects"),
        ("top-k:5", "the rule top-k selects"),
        ("cut:0.1,score=logit", "A cut on logits has no level between 0 and 1"),
        ("bh:0.1,mode=analyze", "only analyzes"),
    ],
)
def test_rules_without_such_a_level_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_rule(text).check_searchable()


def test_a_level_has_five_digits_of_its_distance_to_either_end() -> None:
    assert loosened(RuleParameters(), -9.0).level == 0.00012339
    assert loosened(RuleParameters(), 9.0).level == 0.99987661
