"""What a drift says, and what of it is read again."""

from __future__ import annotations

from typing import Any

import pytest

from bh_studio.engine.records.decisions.drift import Drift, drift_words
from bh_studio.engine.rules import parse_rule

OWN, BH = None, parse_rule("bh:0.05")
UNLIKE = Drift(200, 0.36, 0.2, (0.03, 0.121), (0.48, 0.6))
LIKE = Drift(200, 0.19, 0.2, (0.05, 0.06), (0.5, 0.51))
SHORT = Drift(12, None, None, (0.5, 0.5), (0.5, 0.5))


def test_what_is_said_of_all_sides() -> None:
    assert drift_words((OWN, BH), (UNLIKE, UNLIKE)) == (
        "This text is unlike the one the null was fitted on: levels and p-values do not carry "
        "over.",
        "The scores that the router discards are 1.8 times as far from the null's as those of "
        "like text get; 3.0 to 12.1 % of them, by layer, are among the null's highest 5 %. "
        "Compare rules on this text with bh-studio evaluate.",
    )


def test_the_size_is_that_of_the_side_furthest_off() -> None:
    further = Drift(200, 0.5, 0.2, (0.01, 0.2), (0.5, 0.5))
    assert "are 2.5 times" in drift_words((OWN, BH), (UNLIKE, further)).details


@pytest.mark.parametrize(
    ("drifts", "whose"),
    [
        ((LIKE, UNLIKE, LIKE), "The text of B is unlike"),
        ((UNLIKE, UNLIKE, None), "The text of A and B is unlike"),
        ((UNLIKE, SHORT, UNLIKE), "The text of A and C is unlike"),
        ((UNLIKE, UNLIKE, UNLIKE), "This text is unlike"),
    ],
)
def test_sides_are_named_where_not_all_are_meant(
    drifts: tuple[Drift | None, ...], whose: str
) -> None:
    assert drift_words((OWN, BH, BH), drifts).headline.startswith(whose)


@pytest.mark.parametrize("drifts", [(LIKE, LIKE), (SHORT, SHORT), (None, None), (LIKE, None)])
def test_nothing_is_said_of_like_text(drifts: tuple[Drift | None, ...]) -> None:
    assert drift_words((OWN, BH), drifts) == ("", "")


@pytest.mark.parametrize("rule", ["top-k:5", "bh:0.05,null=robust", "bh:0.05,null=softmax"])
def test_nothing_is_said_where_no_null_was_fitted(rule: str) -> None:
    assert drift_words((OWN, parse_rule(rule)), (UNLIKE, UNLIKE)) == ("", "")


def test_verdicts() -> None:
    assert [drift.verdict for drift in (UNLIKE, LIKE, SHORT)] == [
        "unlike", "like", "too short to tell",
    ]  # fmt: skip
    assert UNLIKE.factor == pytest.approx(1.8)
    assert SHORT.factor is None


@pytest.mark.parametrize("drift", [UNLIKE, LIKE, SHORT])
def test_what_is_written_is_read_again(drift: Drift) -> None:
    assert Drift.from_json(drift.to_json()) == drift


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": -1},
        {"tokens": "many"},
        {"distance": None},
        {"limit": None},
        {"limit": 0.0},
        {"distance": -0.1},
        {"tail_shares": [0.1, 1.1]},
        {"mean_places": [0.1]},
        {"mean_places": [0.1, -0.1]},
        {"another": 1},
    ],
)
def test_what_no_meter_says_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="drift"):
        Drift.from_json({**UNLIKE.to_json(), **wrong})


def test_drift_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="drift"):
        UNLIKE.check(3)
