"""Rows of replayed rules: their way through JSON, and the front."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.records.counts import count_statistics
from bh_studio.engine.records.replays import (
    ArenaRow,
    NullKind,
    ReplayedNull,
    ReplayResult,
    with_front,
)
from bh_studio.engine.rules.text import parse_rule


def row(rule: str = "cut:0.1", count: int = 2, mass: float = 0.5, **values: Any) -> ArenaRow:
    counts = np.full((3, 2), count, np.uint8)
    numbers = {"relative_mass": 0.7, "fixed_relative_mass": 0.6, "overlap": 0.25, "shortage": None}
    return ArenaRow(
        rule=parse_rule(rule), statistics=count_statistics(counts, counts), share_empty=0.125,
        mass=mass, **{**numbers, **values},
    )  # fmt: skip


@pytest.mark.parametrize("rule", ["bh:0.005,null=pooled,max_k=4", "top-k:8/7", "cut:0.1"])
@pytest.mark.parametrize("values", [{}, {"shortage": "Too small.", "on_front": True}])
def test_a_row_comes_back_from_json_as_it_was(rule: str, values: dict[str, Any]) -> None:
    whole = row(rule, **values)
    assert ArenaRow.from_json(json.loads(json.dumps(whole.to_json(), allow_nan=False))) == whole


@pytest.mark.parametrize("name", ["rule", "mean", "per_layer_mean", "overlap", "on_front"])
def test_a_row_without_one_of_its_numbers_is_none(name: str) -> None:
    values = row().to_json()
    del values[name]
    with pytest.raises(KeyError, match=name):
        ArenaRow.from_json(values)


def on_front(*counts_and_masses: tuple[int, float]) -> list[bool]:
    rows = [row(count=count, mass=mass) for count, mass in counts_and_masses]
    return [kept.on_front for kept in with_front(rows)]


def test_the_front_is_what_no_other_row_beats() -> None:
    assert on_front((2, 0.5), (2, 0.6)) == [False, True]  # beaten by mass
    assert on_front((2, 0.5), (3, 0.5)) == [True, False]  # beaten by count
    assert on_front((2, 0.5), (2, 0.5)) == [True, True]
    assert on_front((2, 0.5), (3, 0.6), (5, 0.55)) == [True, True, False]


def test_the_document_says_of_the_null_what_there_is() -> None:
    rows = (row(),)
    bare = ReplayResult("a.npz", 2, 3, 16, 1, 4, ReplayedNull(NullKind.NONE), rows)
    assert bare.to_json() == {
        "schema_version": 1,
        "note": "Selections, not quality: what a rule costs in loss is measured by `bh-studio "
        "evaluate`.",
        "logits": {"file": "a.npz", "layers": 2, "tokens": 3, "experts": 16, "skipped": 1},
        "top_k": 4,
        "null": {"kind": "none"},
        "rows": [rows[0].to_json()],
    }
    null = ReplayedNull(NullKind.OTHER, 7, "ab")
    assert json.loads(json.dumps(null.to_json())) == {
        "kind": "calibration", "tokens": 7, "sha256": "ab",
    }  # fmt: skip
