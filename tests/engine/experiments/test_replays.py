"""Many rules on one recording: rows, the front, and fixed top-k at the same mean."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bh_studio.engine.experiments.replays import arena, default_rules
from bh_studio.engine.records.replays import ArenaRow
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.replay import ReplayedCounts, replay
from bh_studio.engine.rules.parameters import RuleName, RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule
from tests.tiny_olmoe import LAYERS, TOP_K


def rows_of(recording: Recording, *texts: str) -> list[ArenaRow]:
    rules = [parse_rule(text) for text in texts]
    return arena(rules, lambda rule: replay(recording.logits, rule, recording, TOP_K))


def test_a_row_has_the_numbers_of_its_rule(recording: Recording) -> None:
    (row,) = rows_of(recording, "bh:0.05,score=logit,max_k=4")
    replayed = replay(recording.logits, row.rule, recording, TOP_K)
    values = row.to_dict()
    assert values["rule"] == "bh:0.05,score=logit,max_k=4"
    assert values["mean"] == pytest.approx(replayed.counts.mean())
    assert values["std"] == pytest.approx(replayed.counts.std())
    assert values["per_layer_mean"] == pytest.approx(replayed.counts.mean(axis=0).tolist())
    assert len(values["per_layer_mean"]) == LAYERS
    assert values["share_empty"] == pytest.approx((replayed.raw_counts == 0).mean())
    assert values["share_empty"] > 0.1
    assert values["share_clamped_min"] == values["share_empty"]
    assert values["relative_mass"] == pytest.approx(
        replayed.mass.mean() / replayed.native_mass.mean(), rel=1e-5
    )
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_fixed_top_k_is_on_its_own_line_and_cut_above_it(recording: Recording) -> None:
    rows = rows_of(recording, "top-k:1", "top-k:3", f"top-k:{TOP_K}", "cut:0.12,max_k=16")
    for row in rows[:3]:
        assert row.relative_mass == pytest.approx(row.fixed_relative_mass, rel=1e-6)
    assert rows[2].relative_mass == pytest.approx(1)
    assert rows[3].relative_mass > rows[3].fixed_relative_mass
    assert 1 < (rows[3].statistics.mean or 0) < 16


def fake(mean_and_mass: dict[float, tuple[int, float]]) -> list[bool]:
    """on_front of rules "cut" at levels with the given count and mass."""

    def replay_rule(rule: RuleParameters) -> ReplayedCounts:
        assert isinstance(rule.level, float | int)
        count, mass = mean_and_mass.get(rule.level, (1, 0.5))
        counts = np.full((2, 1), count, np.uint8)
        ones = np.ones((2, 1), np.float32)
        return ReplayedCounts(counts, counts, ones * mass, ones, ones, None)

    rules = [RuleParameters(RuleName.CUT, level) for level in mean_and_mass]
    return [row.on_front for row in arena(rules, replay_rule)]


def test_the_front_is_what_no_other_row_beats() -> None:
    beaten_by_mass = {0.1: (2, 0.5), 0.2: (2, 0.6)}
    assert fake(beaten_by_mass) == [False, True]
    beaten_by_count = {0.1: (2, 0.5), 0.2: (3, 0.5)}
    assert fake(beaten_by_count) == [True, False]
    same = {0.1: (2, 0.5), 0.2: (2, 0.5)}
    assert fake(same) == [True, True]
    incomparable = {0.1: (2, 0.5), 0.2: (3, 0.6), 0.3: (5, 0.55)}
    assert fake(incomparable) == [True, True, False]


@pytest.mark.parametrize("top_k", [1, 4, 8])
def test_default_rules_use_no_more_than_the_model(top_k: int) -> None:
    rules = default_rules(top_k)
    assert {rule.rule for rule in rules} >= set(RuleName) - {RuleName.TOP_K}
    assert all(rule.max_k == top_k for rule in rules)
    assert all(max(r.levels(1)) <= top_k for r in rules if r.rule is RuleName.TOP_K)
    assert len(set(rules)) == len(rules)


def test_default_rules_run_and_progress_is_told(recording: Recording) -> None:
    told: list[float] = []
    rules = default_rules(TOP_K)
    rows = arena(rules, lambda rule: replay(recording.logits, rule, recording, TOP_K), told.append)
    assert [row.rule for row in rows] == rules
    assert told[-1] == 1
    assert told == sorted(told)
    assert any(row.on_front for row in rows)


def test_an_error_names_the_rule(recording: Recording) -> None:
    text = format_rule(parse_rule("bh:0.1,max_k=17"))
    with pytest.raises(ValueError, match=f"{text} cannot be replayed: max_k must not exceed"):
        rows_of(recording, "bh:0.1", text)
