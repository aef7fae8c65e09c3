"""What many prompts came to: which rows there are, which are skipped, and the numbers of all."""

from __future__ import annotations

import json

import numpy as np

from bh_studio.engine.records.batch import BatchResult
from bh_studio.engine.records.counts import count_statistics
from bh_studio.engine.records.rows import Answer, FilePrompt, PromptRow, SkippedRow
from bh_studio.engine.records.terms import FinishReason


def answer(*token_ids: int, experts: int = 4) -> Answer:
    counts = np.full((len(token_ids), 2), experts, np.uint8)
    return Answer(
        "text", token_ids, None, 0.5, FinishReason.MAX_NEW_TOKENS, count_statistics(counts, counts)
    )


def row(line: int, own: Answer, other: Answer) -> PromptRow:
    return PromptRow.of(FilePrompt(line, "Who?", {"id": line}), (own, other))


RESULT = BatchResult(
    prompts_name="p.jsonl",
    prompts_sha256="abc",
    unusable=(SkippedRow(2, "It is not valid JSON."), SkippedRow(9, "The prompt is empty.")),
    rows=(
        row(1, answer(1, 2, 3), answer(1, 2, 3, experts=2)),
        SkippedRow(4, "The prompt is too long."),
        row(5, answer(1), answer(9, experts=8)),
    ),
    is_complete=True,
)


def test_rows_without_an_answer_are_skipped_in_the_order_of_the_file() -> None:
    assert [skipped.line for skipped in RESULT.skipped] == [2, 4, 9]
    assert [skipped.line for skipped in RESULT.refused] == [4]
    assert [answered.line for answered in RESULT.answered] == [1, 5]


def test_every_token_weighs_the_same_in_the_numbers_of_all() -> None:
    summary = RESULT.summary
    assert (summary.prompts, summary.skipped, summary.identical) == (2, 3, 1)
    assert (summary.matching, summary.positions, summary.agreement) == (3, 4, 0.75)
    document = summary.to_json()["sides"]
    assert document["baseline"]["statistics"]["mean"] == 4
    assert document["bh"]["statistics"]["mean"] == (3 * 2 + 1 * 8) / 4


def test_a_result_says_its_file_and_which_rows_the_model_has_seen() -> None:
    document = json.loads(json.dumps(RESULT.to_json(), allow_nan=False))
    assert document["prompts_file"] == {"name": "p.jsonl", "sha256": "abc"}
    assert document["overall"] == json.loads(json.dumps(RESULT.summary.to_json()))
    assert [found["key"] for found in document["rows"]] == ["1", "5"]
    assert document["rows"][0]["fields"] == {"id": 1}
    assert document["skipped"] == [
        {"line": 2, "reason": "It is not valid JSON."},
        {"key": "4", "line": 4, "reason": "The prompt is too long."},
        {"line": 9, "reason": "The prompt is empty."},
    ]


def test_nothing_answered_has_no_agreement() -> None:
    nothing = BatchResult("p.txt", "abc", (), (SkippedRow(1, "Too long."),), True)
    assert nothing.to_json()["overall"]["agreement"] is None
