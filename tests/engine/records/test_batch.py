"""What many prompts came to: which rows there are, which are skipped, and the numbers of all."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.records.batch import BatchResult, SharedAnswers
from bh_studio.engine.records.counts import count_statistics
from bh_studio.engine.records.rows import Answer, FilePrompt, PromptRow, SkippedRow
from bh_studio.engine.records.terms import FinishReason
from bh_studio.engine.rules import parse_rule


def answer(*token_ids: int, experts: int = 4) -> Answer:
    counts = np.full((len(token_ids), 2), experts, np.uint8)
    return Answer(
        "text", token_ids, None, 0.5, FinishReason.MAX_NEW_TOKENS, count_statistics(counts, counts)
    )


def row(line: int, *answers: Answer) -> PromptRow:
    return PromptRow.of(FilePrompt(line, "Who?", {"id": line}), answers)


RESULT = BatchResult(
    prompts_name="p.jsonl",
    prompts_sha256="abc",
    sides=(None, parse_rule("bh"), parse_rule("top-k:2")),
    unusable=(SkippedRow(2, "It is not valid JSON."), SkippedRow(9, "The prompt is empty.")),
    rows=(
        row(1, answer(1, 2, 3), answer(1, 2, 3, experts=2), answer(1, 7)),
        SkippedRow(4, "The prompt is too long."),
        row(5, answer(1), answer(9, experts=8), answer(1, experts=2)),
    ),
    is_complete=True,
)


def test_rows_without_an_answer_are_skipped_in_the_order_of_the_file() -> None:
    assert [skipped.line for skipped in RESULT.skipped] == [2, 4, 9]
    assert [skipped.line for skipped in RESULT.refused] == [4]
    assert [answered.line for answered in RESULT.answered] == [1, 5]


def test_every_token_weighs_the_same_in_the_numbers_of_all() -> None:
    summary = RESULT.summary
    assert (summary.prompts, summary.skipped) == (2, 3)
    assert summary.shared == (None, SharedAnswers(3, 4, 1), SharedAnswers(2, 4, 1))
    own, rule, other = summary.to_json()["sides"]
    assert "agreement" not in own
    assert own["statistics"]["mean"] == 4
    assert rule["statistics"]["mean"] == (3 * 2 + 1 * 8) / 4
    assert (rule["agreement"], rule["matching_tokens"], rule["identical_answers"]) == (0.75, 3, 1)
    assert other["agreement"] == 0.5


def test_a_result_says_its_file_and_which_rows_the_model_has_seen() -> None:
    document = json.loads(json.dumps(RESULT.to_json(), allow_nan=False))
    assert document["prompts_file"] == {"name": "p.jsonl", "sha256": "abc"}
    assert document["overall"] == json.loads(json.dumps(RESULT.summary.to_json()))
    assert [found["key"] for found in document["rows"]] == ["1", "5"]
    assert document["rows"][0]["fields"] == {"id": 1}
    own, rule, other = document["rows"][0]["sides"]
    assert "agreement" not in own
    assert (rule["agreement"], rule["first_difference"]) == (1.0, None)
    assert (other["matching_tokens"], other["first_difference"]) == (1, 1)
    assert document["skipped"] == [
        {"line": 2, "reason": "It is not valid JSON."},
        {"key": "4", "line": 4, "reason": "The prompt is too long."},
        {"line": 9, "reason": "The prompt is empty."},
    ]


def test_nothing_answered_has_no_agreement() -> None:
    sides = (None, parse_rule("bh"))
    nothing = BatchResult("p.txt", "abc", sides, (), (SkippedRow(1, "Too long."),), True)
    assert nothing.to_json()["overall"]["sides"][1]["agreement"] is None


def read_back(document: dict[str, Any]) -> BatchResult:
    return BatchResult.from_json({**document, "model": {"layers": 2}, "complete": True})


def test_a_result_comes_back_from_json_as_it_was() -> None:
    settings = {"settings": {"sides": [None, "bh:0.05", "top-k:2"]}}
    document = json.loads(json.dumps({**RESULT.to_json(), **settings}))
    found = read_back(document)
    assert found.sides == RESULT.sides
    assert found.answered == RESULT.answered
    assert found.summary == dataclasses.replace(RESULT.summary, skipped=found.summary.skipped)
    with pytest.raises(ValueError, match="a row has not one answer for each side"):
        read_back({**document, "settings": {"sides": [None, "bh:0.05"]}})
    with pytest.raises(ValueError, match=r"1 to 4 sides, .* got 0"):
        read_back({**document, "settings": {"sides": []}})
