"""Rule parameters: strict names, ranges with a sentence each, and what belongs to which rule."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import pytest

from bh_studio.engine.rules.parameters import (
    MixingWeights,
    Mode,
    NullName,
    OnEmpty,
    RuleName,
    RuleParameters,
    ScoreName,
)

LAYERS, EXPERTS, TOP_K = 16, 64, 8
TESTS = [RuleName.BH, RuleName.BY, RuleName.STOREY, RuleName.HIGHER_CRITICISM]
OTHERS = [rule for rule in RuleName if rule not in TESTS]
OTHER_SCORES = [score for score in ScoreName if score is not ScoreName.PROBABILITY]
ENUMS: list[tuple[str, type[StrEnum]]] = [
    ("rule", RuleName),
    ("mode", Mode),
    ("weights", MixingWeights),
    ("on_empty", OnEmpty),
    ("score", ScoreName),
    ("null", NullName),
]
# A valid level, and its name.
LEVELS = {
    RuleName.BH: (0.05, "alpha"),
    RuleName.BY: (0.05, "alpha"),
    RuleName.STOREY: (0.05, "alpha"),
    RuleName.HIGHER_CRITICISM: (0.1, "alpha0"),
    RuleName.TOP_K: (4, "k"),
    RuleName.TOP_P: (0.5, "p"),
    RuleName.MIN_P: (0.3, "beta"),
    RuleName.CUT: (0.04, "t"),
    RuleName.ENTROPY: (0.7, "h"),
}


def of(rule: RuleName, **parameters: Any) -> RuleParameters:
    return RuleParameters(rule, **{"level": LEVELS[rule][0], **parameters})


@pytest.mark.parametrize(("name", "kind"), ENUMS)
def test_names_become_members_and_others_are_refused(name: str, kind: type[StrEnum]) -> None:
    for member in kind:
        values: dict[str, Any] = {name: str(member.value)}
        if kind is RuleName:
            values["level"] = LEVELS[RuleName(member)][0]
        assert getattr(RuleParameters(**values), name) is member
    for wrong in ("", "BH", "nonsense", None, 3, [next(iter(kind)).value]):
        values = {name: wrong}
        with pytest.raises(ValueError, match=f"^{name} must be one of '") as refused:
            RuleParameters(**values)
        assert all(repr(member.value) in str(refused.value) for member in kind)
        assert f"got {wrong!r}." in str(refused.value)


OPEN = "must lie between 0 and 1, both excluded"
HALF_OPEN = "must lie above 0 and be at most 1"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", RuleName)
def test_no_level_may_be_nan_or_infinite(rule: RuleName, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{LEVELS[rule][1]} must .*; got -?(nan|inf)\.$"):
        RuleParameters(rule, value)
    with pytest.raises(ValueError, match="got"):
        RuleParameters(rule, (LEVELS[rule][0], value))


@pytest.mark.parametrize(
    ("rules", "refused", "accepted", "sentence"),
    [
        (
            [RuleName.BH, RuleName.BY, RuleName.STOREY],
            [0.0, 1.0, -0.1, 1.1],
            [1e-300, 0.5, 1 - 1e-16],
            OPEN,
        ),
        (
            [RuleName.HIGHER_CRITICISM, RuleName.TOP_P, RuleName.MIN_P],
            [0.0, -0.5, 1.0000001],
            [1e-300, 1.0],
            HALF_OPEN,
        ),
        ([RuleName.TOP_K], [0, -1, 0.5, 2.5], [1, 2.0, 64], "must be a whole number from 1"),
        ([RuleName.CUT], [], [-1e30, 0.0, 5.0], "must be a finite number"),
        ([RuleName.ENTROPY], [-0.01, 1.01], [0.0, 1.0], "must lie between 0 and 1"),
    ],
)
def test_levels_have_a_range_and_a_sentence(
    rules: list[RuleName], refused: list[float], accepted: list[float], sentence: str
) -> None:
    for rule in rules:
        symbol = LEVELS[rule][1]
        for value in refused:
            with pytest.raises(ValueError, match=f"^{symbol} {sentence}; got {value}"):
                RuleParameters(rule, value)
            # One wrong layer is enough.
            with pytest.raises(ValueError, match=f"got {value}"):
                RuleParameters(rule, (*accepted, value))
        for value in accepted:
            assert RuleParameters(rule, value).level == value
        assert RuleParameters(rule, tuple(accepted)).levels(len(accepted)) == tuple(accepted)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_is_a_positive_number(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"^temperature must be a positive number; got"):
        RuleParameters(temperature=temperature)


def test_limits_are_in_order() -> None:
    with pytest.raises(ValueError, match=r"^min_k must be at least 1; got 0\.$"):
        RuleParameters(min_k=0)
    with pytest.raises(ValueError, match=r"^min_k must not exceed max_k; got min_k=5, max_k=4\.$"):
        RuleParameters(min_k=5, max_k=4)
    assert RuleParameters(min_k=8, max_k=8).min_k == 8


@pytest.mark.parametrize("rule", OTHERS)
def test_a_rule_without_tests_takes_no_null(rule: RuleName) -> None:
    for null in NullName:
        if null is NullName.DISCARDED:  # the default, which says nothing
            assert not of(rule, null=null).is_test
            continue
        with pytest.raises(ValueError, match=f"^The rule {rule} uses no null; leave null out"):
            of(rule, null=null)


@pytest.mark.parametrize("score", OTHER_SCORES)
def test_only_tests_and_a_cut_take_another_score(score: ScoreName) -> None:
    for rule in RuleName:
        if rule in TESTS or rule is RuleName.CUT:
            assert of(rule, score=score).score is score
        else:
            with pytest.raises(ValueError, match=f"^The rule {rule} looks at probabilities"):
                of(rule, score=score)


@pytest.mark.parametrize("rule", TESTS)
def test_the_softmax_null_takes_probabilities_only(rule: RuleName) -> None:
    assert of(rule, null=NullName.SOFTMAX).null is NullName.SOFTMAX
    for score in OTHER_SCORES:
        with pytest.raises(ValueError, match=r"^The null softmax is made of probabilities"):
            of(rule, null=NullName.SOFTMAX, score=score)


@pytest.mark.parametrize("rule", TESTS)
def test_the_robust_null_needs_the_scores_of_all_experts(rule: RuleName) -> None:
    for score in ScoreName:
        if score.has_factor:
            with pytest.raises(ValueError, match=rf"^The null robust needs .* score {score} "):
                of(rule, null=NullName.ROBUST, score=score)
        else:
            assert of(rule, null=NullName.ROBUST, score=score).score is score


def test_what_needs_a_calibration() -> None:
    for rule in RuleName:
        assert of(rule).is_test is (rule in TESTS)
        assert of(rule).needs_calibration is (rule in TESTS)
    for score in ScoreName:
        assert of(RuleName.CUT, score=score).needs_calibration is score.has_factor
    assert ScoreName.OUTPUT.has_factor
    assert not ScoreName.LOGIT.has_factor


def test_levels_are_one_a_layer() -> None:
    assert of(RuleName.BH).levels(3) == (0.05, 0.05, 0.05)
    many = of(RuleName.BH, level=(0.01, 0.02, 0.03))
    assert many.levels(3) == (0.01, 0.02, 0.03)
    with pytest.raises(ValueError, match=r"^alpha has 3 values for the 16 layers of this model"):
        many.levels(LAYERS)
    with pytest.raises(ValueError, match="3 values for the 16 layers"):
        many.check_shape(LAYERS, EXPERTS)
    with pytest.raises(ValueError, match=r"^alpha has no value\.$"):
        of(RuleName.BH, level=())


def test_a_rule_must_fit_the_experts() -> None:
    RuleParameters(max_k=EXPERTS).check_shape(LAYERS, EXPERTS)
    with pytest.raises(ValueError, match=r"^max_k must not exceed the 64 experts .*; got 65\.$"):
        RuleParameters(max_k=EXPERTS + 1).check_shape(LAYERS, EXPERTS)
    of(RuleName.TOP_K, level=64.0).check_shape(LAYERS, EXPERTS)
    for level in (65, (1,) * 15 + (65,)):
        with pytest.raises(ValueError, match=r"^k must not exceed the 64 experts .*; got 65\.$"):
            of(RuleName.TOP_K, level=level).check_shape(LAYERS, EXPERTS)


def test_used_counts_apply_the_limits_and_what_an_empty_selection_gets() -> None:
    limits = RuleParameters(min_k=2, max_k=5)
    assert limits.used_counts(7, TOP_K) == [2, 2, 2, 3, 4, 5, 5, 5]
    top_k = RuleParameters(min_k=2, max_k=5, on_empty=OnEmpty.TOP_K)
    assert top_k.used_counts(7, 4) == [4, 2, 2, 3, 4, 5, 5, 5]
    # The limits hold for it too.
    assert top_k.used_counts(7, 1)[0] == 2
    assert top_k.used_counts(7, 7)[0] == 5


@pytest.mark.parametrize("rule", RuleName)
def test_the_level_goes_by_the_name_it_has_in_the_literature(rule: RuleName) -> None:
    level, symbol = LEVELS[rule]
    assert of(rule).level_symbol == symbol
    assert of(rule).level_text == f"{symbol} {level:g}"
    assert of(rule, level=(level,) * 3).level_text == f"{symbol} of each layer"


@pytest.mark.parametrize("rule", RuleName)
def test_a_level_can_be_searched_where_it_says_how_many_are_selected(rule: RuleName) -> None:
    if rule in (RuleName.HIGHER_CRITICISM, RuleName.TOP_K, RuleName.ENTROPY):
        with pytest.raises(
            ValueError,
            match=rf"how many experts the rule {rule} selects; use one of bh, by, storey, top-p, "
            r"min-p, cut\.$",
        ):
            of(rule).check_searchable()
        return
    of(rule).check_searchable()
    with pytest.raises(ValueError, match=r"^A rule that only analyzes changes no mean"):
        of(rule, mode=Mode.ANALYZE).check_searchable()


def test_a_level_on_logits_can_be_searched_by_tests_alone() -> None:
    of(RuleName.BH, score=ScoreName.LOGIT).check_searchable()
    of(RuleName.CUT, score=ScoreName.OUTPUT).check_searchable()
    with pytest.raises(ValueError, match=r"^A cut on logits has no level between 0 and 1"):
        of(RuleName.CUT, score=ScoreName.LOGIT).check_searchable()
