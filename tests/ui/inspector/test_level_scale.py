"""Levels on a slider: what the catalogue allows, and the stored one exactly."""

from __future__ import annotations

import numpy as np
import pytest

from bh_studio.engine.rules import CATALOGUE, RuleEntry, RuleParameters, parse_rule
from bh_studio.ui.state.inspection.level_scale import STEPS, LevelScale

SCORES = np.array([[0.4, 0.2, -np.inf], [0.5, 0.1, 0.0]], np.float32)
ENTRIES = [pytest.param(entry, id=entry.name) for entry in CATALOGUE.values()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_step_is_a_level_that_the_rule_may_have(entry: RuleEntry) -> None:
    scale = LevelScale.of(parse_rule(entry.example_text), SCORES)
    levels = [scale.level_at(step) for step in range(STEPS + 1)]
    for level in levels:
        entry.check_level(level)
    assert levels == sorted(levels)
    assert entry.example in levels


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_step_of_the_stored_level_is_the_stored_level(entry: RuleEntry) -> None:
    stored = 3.0 if entry.level_is_count else 0.0123456789012345
    scale = LevelScale.of(RuleParameters(rule=entry.name, level=stored), SCORES)
    assert scale.level_at(scale.step_of(stored)) == stored


def test_levels_between_0_and_1_are_tried_by_ratios() -> None:
    scale = LevelScale.of(parse_rule("bh:0.05"), SCORES)
    assert scale.level_at(scale.step_of(0.001)) == pytest.approx(0.001, rel=0.01)
    near = scale.step_of(0.01) - scale.step_of(0.001), scale.step_of(0.1) - scale.step_of(0.01)
    assert abs(near[0] - near[1]) <= 1


def test_a_number_of_experts_goes_up_to_all_of_them() -> None:
    scale = LevelScale.of(parse_rule("top-k:5"), np.zeros((16, 64)))
    assert (scale.level_at(0), scale.level_at(STEPS)) == (1.0, 64.0)


def test_a_level_that_may_be_any_number_is_bounded_by_the_scores() -> None:
    scale = LevelScale.of(parse_rule("cut:0.04"), SCORES)
    assert (scale.low, scale.high) == pytest.approx((0.0, 0.5))
    outside = LevelScale.of(parse_rule("cut:0.9"), SCORES)
    assert outside.high == 0.9


def test_equal_scores_leave_room_to_move() -> None:
    scale = LevelScale.of(parse_rule("cut:0.04"), np.full((2, 3), 0.04))
    assert scale.level_at(STEPS) > scale.level_at(0)


def test_a_level_a_layer_has_no_scale() -> None:
    with pytest.raises(ValueError, match="each layer"):
        LevelScale.of(parse_rule("top-k:8/7"), SCORES)
