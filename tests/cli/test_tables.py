"""What tables call a side, how wide their columns are, and what they say below."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bh_studio.cli.tables.answer_columns import decided, legend, titles_legend
from bh_studio.cli.tables.batch_summary import summary_text
from bh_studio.cli.tables.evaluation import table as evaluation_table
from bh_studio.cli.tables.sides import drift_lines, layer_lines, side_titles, title_lines
from bh_studio.cli.tables.sweep import summary_lines
from bh_studio.cli.tables.table import aligned, line
from bh_studio.engine.records.batch import PromptSummary
from bh_studio.engine.records.counts import count_statistics
from bh_studio.engine.records.decisions.drift import Drift, drift_words
from bh_studio.engine.records.evaluation import Contender, EvaluationResult, WindowSums
from bh_studio.engine.records.rows import Answer
from bh_studio.engine.records.sweep import SweepResult, sweep_key
from bh_studio.engine.records.terms import FinishReason, ModelInfo
from bh_studio.engine.rules import Mode, parse_rule

MODEL = ModelInfo(
    id="embedded", name="olmoe-nano", architecture="OlmoeForCausalLM", fingerprint="f" * 64,
    layers=2, experts=64, top_k=8, context_length=1024, parameter_count=1, dtype="float32",
    device="cpu", expert_path="grouped", null_sha256="0" * 64, null_samples=112_000,
)  # fmt: skip
_SUMS = WindowSums(np.ones((1, 3)), np.ones((1, 5, 2)), 10, 20)
EVALUATION = EvaluationResult(
    model=MODEL,
    texts=(("code.txt", "0" * 64, 11), ("tale.txt", "1" * 64, 11), ("note.txt", "2" * 64, 11)),
    window=10,
    stride=10,
    tokens=np.array([10]),
    contenders=(Contender(None), Contender(parse_rule("bh"))),
    sums=(_SUMS, _SUMS),
    is_complete=True,
    environment={},
)


def test_a_side_is_called_by_its_letter_and_its_rule() -> None:
    bh, other = parse_rule("bh:0.01,null=pooled,mode=analyze"), parse_rule("min-p:0.29512")
    assert side_titles((None, bh), 8) == ["A: baseline (top 8)", "B: BH (alpha 0.01)"]
    # Beside other rules its alpha alone may not tell it from them.
    assert side_titles((bh, other, None), 4) == [
        "A: bh:0.01,null=pooled,mode=analyze", "B: min-p:0.29512", "C: baseline (top 4)",
    ]  # fmt: skip
    (long,) = title_lines((parse_rule("top-k:" + "/".join(["8"] * 64)),), 8)
    assert long.startswith("A: top-k:8/8/8")
    assert long.endswith("…")
    assert len(long) == 72


def test_the_layers_are_those_of_sides_with_a_rule() -> None:
    sides = (parse_rule("bh"), None, parse_rule("top-k:2"))
    assert layer_lines(sides, [[1.26, 2], [8, 8], [2, 2]])[2:] == ["A 1.3  2.0", "C 2.0  2.0"]
    assert layer_lines((None,), [[8, 8]]) == []


def test_the_summary_of_many_prompts_has_a_column_a_side() -> None:
    sides = (None, parse_rule("bh"), parse_rule("min-p:0.29512"))
    summary = PromptSummary.of([], skipped=0, sides=3)
    lines = summary_text(summary, sides, 8).splitlines()
    assert lines[1:4] == ["A: baseline (top 8)", "B: bh:0.05", "C: min-p:0.29512"]
    assert lines[5].split() == ["A", "B", "C"]
    assert len(lines[5]) == len(lines[6])


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    rows = [("", "experts", "ppl"), ("bh:0.05", "8.00", "1234567.063"), ("日本", "10.00", "1.5")]
    assert aligned(rows, left=1) == [
        "         experts          ppl",
        "bh:0.05     8.00  1234567.063",
        "日本       10.00          1.5",
    ]


def test_cells_wider_than_their_columns_stay_apart() -> None:
    assert line(["123456789", "1234.5", ""], (6, 4, 3)) == "123456789  1234.5"


@pytest.mark.parametrize(
    ("rule", "said"), [(None, "-"), ("entropy:0.8", "-"), ("bh", "0.0%"), ("top-k:5", "0.0%")]
)
def test_a_limit_decides_only_where_there_is_something_to_limit(
    rule: str | None, said: str
) -> None:
    assert decided(rule if rule is None else parse_rule(rule), 0.0) == said


def test_a_sweep_with_a_single_answered_prompt_has_no_intervals() -> None:
    counts = count_statistics(np.array([[8, 4]]), np.array([[8, 4]]))
    answer = Answer(" a", (5,), None, 0.1, FinishReason.MAX_NEW_TOKENS, counts)
    answers = {sweep_key(0, 0, side): answer for side in (0, 1)}
    refused = {1: "The prompt is too long."}
    result = SweepResult(("a", "b"), (None, parse_rule("bh")), 1, answers, refused, True)
    assert summary_lines(result) == [
        "One prompt says nothing of others, so there are no intervals over prompts."
    ]


def test_the_legend_says_whose_counts_are_simulated() -> None:
    assert legend(Mode.ANALYZE).endswith("own routing; BH's counts are simulated.")
    assert legend(Mode.ANALYZE, "top-k:5's counts").endswith("; top-k:5's counts are simulated.")
    assert "simulated" not in legend(Mode.PATCH)
    assert "BH" not in legend(Mode.PATCH)
    assert "with the baseline's\ntoken" in legend(Mode.PATCH)
    assert "with A's\ntoken" in titles_legend("A's")
    assert max(map(len, legend(Mode.PATCH).splitlines())) <= 80


def test_a_text_unlike_the_nulls_is_told_below_the_numbers() -> None:
    unlike = Drift(200, 0.36, 0.2, (0.03, 0.121), (0.48, 0.6))
    first, *lines = drift_lines((None, parse_rule("bh")), (unlike, unlike))
    assert first == ""
    assert lines[0].startswith("This text is unlike the one the null was fitted on: levels")
    assert max(map(len, lines)) <= 100
    words = drift_words((None, parse_rule("bh")), (unlike, unlike))
    assert " ".join(lines) == f"{words.headline} {words.details}"
    assert drift_lines((None, parse_rule("bh")), (None, None)) == []


def test_texts_unlike_the_nulls_are_named_below_an_evaluation() -> None:
    unlike = Drift(200, 0.36, 0.2, (0.03, 0.121), (0.48, 0.6))
    like = replace(unlike, distance=0.1)
    found = replace(EVALUATION, drifts=(unlike, like, None))
    assert evaluation_table(found).splitlines()[-5:] == [
        "",
        "Unlike the text the null was fitted on, by their first window, so that levels and",
        "p-values do not carry over. The scores that the router discards are there",
        "  code.txt: 1.8 times as far from the null's as those of like text get; 3.0 to 12.1 % of "
        "them, by",
        "    layer, are among the null's highest 5 %.",
    ]
    for other in (
        replace(found, drifts=(like, None, None)),
        replace(EVALUATION, drifts=()),
        replace(found, contenders=(Contender(None), Contender(parse_rule("top-k:5")))),
    ):
        assert "Unlike" not in evaluation_table(other)
