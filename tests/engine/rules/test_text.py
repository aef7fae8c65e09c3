"""Rules as short texts: reading, writing, and what is refused."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bh_studio.engine.rules.parameters import (
    MixingWeights,
    Mode,
    NullName,
    OnEmpty,
    RuleName,
    RuleParameters,
    ScoreName,
)
from bh_studio.engine.rules.text import (
    RULE_SETTINGS,
    completed_rule,
    format_rule,
    parse_rule,
    read_rule,
    rule_title,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bh", RuleParameters()),
        ("bh:0.05", RuleParameters()),
        ("bh,max_k=4", RuleParameters(max_k=4)),
        ("by:1e-3", RuleParameters(RuleName.BY, 0.001)),
        (" bh:.05 , min_k = 2 ", RuleParameters(min_k=2)),
        ("top-k:5", RuleParameters(RuleName.TOP_K, 5)),
        ("top-k:12", RuleParameters(RuleName.TOP_K, 12, max_k=12)),
        ("top-k:12,max_k=10", RuleParameters(RuleName.TOP_K, 12, max_k=10)),
        ("top-k:8/7/9", RuleParameters(RuleName.TOP_K, (8, 7, 9), max_k=9)),
        ("top-k:3/", RuleParameters(RuleName.TOP_K, (3,))),
        ("top-p:0.45,max_k=16", RuleParameters(RuleName.TOP_P, 0.45, max_k=16)),
        ("cut:-1.5,score=logit", RuleParameters(RuleName.CUT, -1.5, score=ScoreName.LOGIT)),
        ("cut:12,score=logit", RuleParameters(RuleName.CUT, 12, score=ScoreName.LOGIT, max_k=8)),
        ("hc:1,mode=analyze", RuleParameters(RuleName.HIGHER_CRITICISM, 1, mode=Mode.ANALYZE)),
        (
            "bh:0.01,score=output,null=pooled,on_empty=top_k,weights=match,min_k=2,temperature=1.5",
            RuleParameters(
                level=0.01,
                score=ScoreName.OUTPUT,
                null=NullName.POOLED,
                on_empty=OnEmpty.TOP_K,
                weights=MixingWeights.MATCH,
                min_k=2,
                temperature=1.5,
            ),
        ),
    ],
)
def test_reads_a_rule(text: str, expected: RuleParameters) -> None:
    assert parse_rule(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "rule must be one of bh, by, storey, hc, top-k, top-p, min-p, cut, entropy; got ''."),
        ("BH:0.05", "got 'BH'."),
        ("0.05", "got '0.05'."),
        ("top-k", 'a level is missing, as in "top-k:5".'),
        ("bh:", 'a level is missing, as in "bh:0.05".'),
        ("bh:five", "the level must be a number; got 'five'."),
        ("bh:nan", "the level must be a number; got 'nan'."),
        ("bh:1_0", "the level must be a number; got '1_0'."),
        ("bh:٠.٠٥", "the level must be a number; got '٠.٠٥'."),
        ("bh:0.1//0.2", "the level must be a number; got ''."),
        ("bh:/", "the level must be a number; got ''."),
        ("bh:1.5", "alpha must lie between 0 and 1, both excluded; got 1.5."),
        ("cut:1e999", "t must be a finite number; got inf."),
        ("top-k:1e999", "k must be a whole number from 1; got inf."),
        ("top-k:2.5", "k must be a whole number from 1; got 2.5."),
        ("bh:0.05:3", "the level must be a number; got '0.05:3'."),
        ("bh:0.05,", "'' is not one of score=..., null=..., temperature=..., min_k=..., max_k=..."),
        ("bh:0.05,alpha=3", "'alpha=3' is not one of score=..."),
        ("bh:0.05,min_k", "'min_k' is not one of score=..."),
        ("bh:0.05,min_k=2,min_k=2", "min_k is given twice."),
        ("bh:0.05,min_k=-1", "min_k must be a whole number; got '-1'."),
        ("bh:0.05,max_k=" + "9" * 5000, "max_k must be a whole number"),
        ("bh:0.05,min_k=0", "min_k must be at least 1; got 0."),
        ("bh:0.05,min_k=9", "min_k must not exceed max_k; got min_k=9, max_k=8."),
        ("bh:0.05,null=normal", "null must be one of discarded, pooled, all, per-expert, "),
        ("bh:0.05,score=", "score must be one of probability, logit, output, sensitivity; got ''."),
        ("top-k:5,null=all", "The rule top-k uses no null; leave null out."),
    ],
)
def test_says_what_is_wrong_and_quotes_the_text(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        parse_rule(text)
    assert str(raised.value).startswith(f"The rule {text!r} cannot be used: ")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("bh", {"rule": RuleName.BH}),
        ("bh:0.1,min_k=9", {"rule": RuleName.BH, "level": 0.1, "min_k": 9}),
        ("top-k:12", {"rule": RuleName.TOP_K, "level": 12}),
        ("cut:0,mode=analyze", {"rule": RuleName.CUT, "level": 0, "mode": Mode.ANALYZE}),
    ],
)
def test_what_a_text_leaves_out_is_told_from_what_it_says(
    text: str, values: dict[str, object]
) -> None:
    assert read_rule(text) == values


def test_what_is_left_out_can_be_said_elsewhere() -> None:
    assert completed_rule({}) == RuleParameters()
    assert completed_rule({**read_rule("bh:0.1,min_k=9"), "max_k": 12}) == RuleParameters(
        level=0.1, min_k=9, max_k=12
    )
    assert completed_rule({**read_rule("top-k:12"), "max_k": 10}).max_k == 10
    assert completed_rule({**read_rule("top-k:12"), "mode": "analyze"}).max_k == 12
    with pytest.raises(ValueError, match=r"^min_k must not exceed max_k; got min_k=9, max_k=8\.$"):
        completed_rule(read_rule("bh:0.1,min_k=9"))
    # But a level that the rule cannot have is wrong whatever else is said.
    with pytest.raises(ValueError, match=r"^The rule 'bh:1' cannot be used: alpha must lie"):
        read_rule("bh:1")


def test_bh_goes_by_its_name_and_others_by_their_text() -> None:
    assert rule_title(parse_rule("bh:0.01,null=pooled")) == "BH"
    assert rule_title(parse_rule("top-p:0.450,max_k=16")) == "top-p:0.45,max_k=16"


@pytest.mark.parametrize(
    "text",
    [
        "bh:0.05",
        "top-k:5",
        "top-k:12",
        "top-k:12,max_k=8",
        "top-k:8/7/9",
        "top-k:3/",
        "by:1e-05",
        "bh:0.05,score=logit,null=all,temperature=2,max_k=10",
        "bh:0.05,temperature=0.1",
    ],
)
def test_writes_nothing_that_goes_without_saying(text: str) -> None:
    assert format_rule(parse_rule(text)) == text


def test_knows_every_field_of_a_rule() -> None:
    every = "bh:0.2,score=logit,null=all,temperature=0.5,min_k=2,max_k=3,on_empty=top_k"
    parameters = parse_rule(f"{every},weights=match,mode=analyze")
    default = RuleParameters(RuleName.BY)
    same = [
        f.name for f in fields(default) if getattr(parameters, f.name) == getattr(default, f.name)
    ]
    assert same == []
    assert {f.name for f in fields(default)} == {"rule", "level", *RULE_SETTINGS}


_LEVEL = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(1, 64),
)


@st.composite
def rules(draw: st.DrawFn) -> RuleParameters:
    values = {
        "rule": draw(st.sampled_from(RuleName)),
        "level": draw(st.one_of(_LEVEL, st.lists(_LEVEL, min_size=1, max_size=4).map(tuple))),
        "temperature": draw(st.floats(0, exclude_min=True, allow_infinity=False)),
        "min_k": draw(st.integers(1, 4)),
        "max_k": draw(st.integers(4, 70)),
        "mode": draw(st.sampled_from(Mode)),
        "weights": draw(st.sampled_from(MixingWeights)),
        "on_empty": draw(st.sampled_from(OnEmpty)),
        "score": draw(st.sampled_from(ScoreName)),
        "null": draw(st.sampled_from(NullName)),
    }
    kept = draw(st.sets(st.sampled_from(sorted(values))))
    try:
        return RuleParameters(**{name: values[name] for name in kept | {"rule", "level"}})
    except ValueError:
        assume(False)
        raise


@given(rules())
def test_what_is_written_reads_back(parameters: RuleParameters) -> None:
    text = format_rule(parameters)
    assert parse_rule(text) == parameters
    assert format_rule(parse_rule(text)) == text
