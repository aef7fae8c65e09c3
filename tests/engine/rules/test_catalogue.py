"""The catalogue: an entry and a counter for every rule, and what follows from an entry."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from bh_studio.engine import rules
from bh_studio.engine.routing.counters import COUNTERS
from bh_studio.engine.rules import (
    CATALOGUE,
    LevelEffect,
    Mode,
    NullName,
    RuleEntry,
    RuleName,
    RuleParameters,
    ScoreName,
    format_rule,
    parse_rule,
    rule_title,
)

ENTRIES = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
LEVELS = (-math.inf, -2.0, 0, 1e-300, 0.04, 0.5, 1 - 1e-16, 1, 1.5, 2, 64, math.inf, math.nan)


def of(entry: RuleEntry, **values: Any) -> RuleParameters:
    return RuleParameters(entry.name, **{"level": entry.example, **values})


def is_refused(entry: RuleEntry, **values: Any) -> bool:
    try:
        of(entry, **values)
    except ValueError:
        return True
    return False


def test_every_rule_has_an_entry_and_a_counter() -> None:
    assert list(CATALOGUE) == list(RuleName)
    assert set(COUNTERS) == set(RuleName)
    assert all(entry.name is name for name, entry in CATALOGUE.items())


@ENTRIES
def test_the_example_is_a_rule_as_it_is_written(entry: RuleEntry) -> None:
    assert format_rule(parse_rule(entry.example_text)) == entry.example_text
    assert parse_rule(entry.example_text).level == entry.example
    assert rule_title(of(entry)) == ("BH" if entry.name is RuleName.BH else entry.example_text)
    if entry.name is not RuleName.BH:
        with pytest.raises(ValueError, match=f'level is missing, as in "{entry.example_text}"'):
            parse_rule(entry.name)


@ENTRIES
def test_a_rule_takes_the_levels_of_its_entry(entry: RuleEntry) -> None:
    for level in LEVELS:
        assert is_refused(entry, level=level) is (level not in entry.levels)
        assert is_refused(entry, level=(entry.example, level)) is (level not in entry.levels)
    assert entry.example in entry.levels
    # A form that moves the level by a step stays among them.
    assert entry.example + entry.step in entry.levels
    assert entry.example - entry.step in entry.levels


@ENTRIES
def test_a_rule_takes_the_scores_and_nulls_of_its_entry(entry: RuleEntry) -> None:
    for score in ScoreName:
        assert is_refused(entry, score=score) is (score not in entry.scores)
    for null in NullName:
        assert is_refused(entry, null=null) is (
            null not in entry.nulls and null is not NullName.DISCARDED
        )
    assert of(entry).is_test is entry.is_test is bool(entry.nulls)


def test_only_two_nulls_are_particular_about_the_score() -> None:
    entry = CATALOGUE[RuleName.BH]
    refused = {
        (null, score)
        for null, score in product(entry.nulls, entry.scores)
        if is_refused(entry, null=null, score=score)
    }
    assert refused == {
        (NullName.ROBUST, ScoreName.OUTPUT),
        (NullName.ROBUST, ScoreName.SENSITIVITY),
        (NullName.SOFTMAX, ScoreName.LOGIT),
        (NullName.SOFTMAX, ScoreName.OUTPUT),
        (NullName.SOFTMAX, ScoreName.SENSITIVITY),
    }


@ENTRIES
def test_a_level_that_is_a_count_is_held_to_the_experts_and_raises_max_k(entry: RuleEntry) -> None:
    assert entry.level_is_count is (entry.name is RuleName.TOP_K)
    if entry.level_is_count:
        assert parse_rule(f"{entry.name}:12").max_k == 12
        with pytest.raises(ValueError, match=f"^{entry.symbol} must not exceed the 8 experts"):
            of(entry, level=9).check_shape(16, 8)


@ENTRIES
def test_a_level_is_searched_where_it_sets_the_number_of_experts(entry: RuleEntry) -> None:
    if entry.effect is LevelEffect.UNSET:
        with pytest.raises(ValueError, match=f"the rule {entry.name} selects; use one of bh, by, "):
            of(entry).check_searchable()
        return
    of(entry).check_searchable()
    with pytest.raises(ValueError, match="only analyzes changes no mean"):
        of(entry, mode=Mode.ANALYZE).check_searchable()
    if ScoreName.LOGIT in entry.scores and not entry.is_test:
        with pytest.raises(ValueError, match=f"^A {entry.name} on logits has no level"):
            of(entry, score=ScoreName.LOGIT).check_searchable()


@ENTRIES
def test_what_people_are_told_is_one_short_sentence(entry: RuleEntry) -> None:
    assert entry.sentence[0].isupper()
    assert entry.sentence.endswith(".")
    assert entry.sentence.count(".") == 1
    # Beside an example it fits into a line of a terminal.
    assert len(entry.sentence) <= 64
    assert entry.levels.words.startswith("must ")


def test_the_face_shows_what_it_names() -> None:
    assert all(hasattr(rules, name) for name in rules.__all__)
