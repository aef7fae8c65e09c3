"""What each tint says of a token, and that text can be read on all of its colours."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules import RuleParameters, parse_rule
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.run_sides import sides_of
from bh_studio.ui.state.tints.tint import EXPERTS, TINTS, Tint, TintScale
from bh_studio.ui.widgets.theme import DARK, LIGHT, Colors
from tests.fake_engine import MODEL, FakeSide, chosen
from tests.ui.state.test_expert_scale import contrast, luminance

SURPRISE, RANK, KL = TINTS[1:]
SCALES: dict[str, TintScale] = {
    "experts": ExpertScale(1, 8), **{tint.name: tint.scale(RunModel("B")) for tint in TINTS[1:]}
}  # fmt: skip


def run_of(rule: RuleParameters | None, *, keeps: bool = True) -> RunModel:
    """Two tokens: one that was certain, and the 30th of its side, one of a hundred."""
    said = FakeSide(MODEL.layers)
    said.token_ids, said.texts, said.seconds = [1, 2], [" a", " b"], [0.1, 0.2]
    said.counts = said.raw_counts = [np.full(16, 3, np.uint8), np.full(16, 8, np.uint8)]
    said.choices = [chosen(1.0, 1), chosen(0.01, 30)] if keeps else []
    run = RunModel("B")
    run.begin(sides_of("Once", (rule,), GenerationParameters(), MODEL, None)[0])
    run.replace(said.record())
    return run


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", SCALES)
def test_text_is_readable_over_the_whole_scale(name: str, colors: Colors) -> None:
    for step in range(1001):
        ground = SCALES[name].tint_at(step / 1000, colors.surface)
        assert contrast(ground, colors.text) >= 4.5


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("tint", [SURPRISE, RANK, KL], ids=lambda tint: tint.name)
def test_a_quiet_scale_begins_with_nothing_and_only_deepens(tint: Tint, colors: Colors) -> None:
    scale = tint.scale(RunModel("B"))
    grounds = [scale.tint_at(step / 50, colors.surface) for step in range(51)]
    assert grounds[0] == colors.surface
    light = [luminance(ground) for ground in grounds]
    assert light == sorted(light, reverse=not colors.is_dark)
    assert contrast(grounds[0], grounds[-1]) > 1.6


def test_values_are_those_that_were_kept() -> None:
    run = run_of(RuleParameters())
    assert EXPERTS.values(run).tolist() == [3, 8]
    assert SURPRISE.values(run).tolist() == pytest.approx([0, -math.log(0.01)])
    assert RANK.values(run).tolist() == [1, 30]
    assert RANK.values(run, 1).tolist() == [30]


def test_ranks_have_a_logarithmic_scale() -> None:
    scale = RANK.scale(RunModel("B"))
    assert scale.labels(9) == [
        (0, "1"), (pytest.approx(1 / 3), "10"), (pytest.approx(2 / 3), "100"), (1, "1,000+")
    ]  # fmt: skip
    assert scale.labels(2) == [(0, "1"), (1, "1,000+")]
    assert scale.tint(1000, LIGHT.surface) == scale.tint(50_000, LIGHT.surface)


def test_the_model_s_own_routing_is_left_plain() -> None:
    own, ruled = run_of(None), run_of(parse_rule("top-k:8"))
    assert EXPERTS.colors(own, 0, LIGHT.surface) == [LIGHT.surface] * 2
    assert EXPERTS.colors(ruled, 0, LIGHT.surface) == [
        ruled.scale.tint(count, LIGHT.surface) for count in (3, 8)
    ]
    # What it would have used is no property of the model's own routing.
    counted = run_of(parse_rule("bh:0.05,mode=analyze"))
    assert EXPERTS.values(counted).tolist() == [3, 8]


@pytest.mark.parametrize("tint", [SURPRISE, RANK], ids=lambda tint: tint.name)
def test_what_was_not_kept_has_no_colour(tint: Tint) -> None:
    run = run_of(RuleParameters(), keeps=False)
    assert not tint.is_known(run)
    assert tint.colors(run, 0, DARK.surface) == [DARK.surface] * 2
    assert tint.words(run, 0) == ""
    obstacle = tint.obstacle_of([run])
    assert obstacle is not None
    assert obstacle.words
    assert obstacle.sentence.endswith(".")
    assert tint.obstacle_of([]) is None


def test_one_side_that_has_values_is_enough() -> None:
    known, unknown = run_of(RuleParameters()), run_of(RuleParameters(), keeps=False)
    assert SURPRISE.obstacle_of([unknown, known]) is None
    assert SURPRISE.colors(unknown, 0, LIGHT.surface) == [LIGHT.surface] * 2


def test_kl_is_shown_where_sides_read_the_same() -> None:
    run = run_of(RuleParameters())
    assert run.kl is None
    assert KL.colors(run, 0, LIGHT.surface) == [LIGHT.surface] * 2
    assert KL.words(run, 0) == ""
    run.take_kl(np.array([0.0, 0.2]))
    assert KL.values(run).tolist() == [0.0, 0.2]
    plain, tinted = KL.colors(run, 0, LIGHT.surface)
    assert plain == LIGHT.surface
    assert tinted == KL.scale(run).tint(0.2, LIGHT.surface) != LIGHT.surface
    assert KL.words(run, 1) == "KL to side A: 0.2000 nats"
    # Behind what was compared it says that it was not.
    run.take_kl(np.array([0.2]))
    assert KL.colors(run, 1, LIGHT.surface) == [LIGHT.surface]
    assert "after token 0: the sides have not read the same" in KL.words(run, 1)
    run.take_kl(np.zeros(0))
    assert KL.words(run, 0) == "No KL to side A: it has read another prompt."


def test_another_answer_has_no_kl_of_the_one_before() -> None:
    run = run_of(RuleParameters())
    run.take_kl(np.array([0.0, 0.2]))
    assert run.about is not None
    run.begin(run.about)
    assert run.kl is None
    run = run_of(RuleParameters())
    run.take_kl(np.array([0.0, 0.2]))
    assert run.record is not None
    run.replace(run.record)
    assert run.kl is None


@pytest.mark.parametrize(
    ("tint", "words"),
    [
        (EXPERTS, "Experts, mean over 16 layers: 8.00\nFewest and most in a layer: 8 and 8"),
        (SURPRISE, "Surprise: 4.61 nats, probability 0.01"),
        (RANK, "Rank: 30, probability 0.01"),
    ],
)
def test_words_follow_the_tint(tint: Tint, words: str) -> None:
    assert tint.words(run_of(RuleParameters()), 1) == words
