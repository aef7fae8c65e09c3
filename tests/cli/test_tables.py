"""What tables call a rule: BH by its name, any other by its text, in a column that holds it."""

from __future__ import annotations

import numpy as np
import pytest

from bh_studio.cli.tables.answer_columns import decided, legend, rule_column
from bh_studio.cli.tables.batch_summary import summary_text
from bh_studio.cli.tables.sweep import summary_lines
from bh_studio.cli.tables.table import aligned, line
from bh_studio.engine.records.batch import PromptSummary
from bh_studio.engine.records.counts import count_statistics
from bh_studio.engine.records.rows import Answer
from bh_studio.engine.records.sweep import SweepResult, sweep_key
from bh_studio.engine.records.terms import FinishReason
from bh_studio.engine.rules import Mode, parse_rule


def test_a_rule_gives_its_column_a_title_of_limited_width() -> None:
    assert rule_column(parse_rule("bh:0.01,null=pooled,mode=analyze")) == "BH"
    assert rule_column(parse_rule("min-p:0.29512")) == "min-p:0.29512"
    long = rule_column(parse_rule("top-k:" + "/".join(["8"] * 64)))
    assert long.startswith("top-k:8/8/8")
    assert long.endswith("…")
    assert len(long) == 40


def test_the_summary_of_many_prompts_says_whose_it_is() -> None:
    summary = PromptSummary.of([], skipped=0)
    usual, other = (
        summary_text(summary, parse_rule(rule)).splitlines() for rule in ("bh", "min-p:0.29512")
    )
    assert usual[1].split() == ["baseline", "BH"]
    assert "BH, mean experts of each layer (from 0):" in usual
    assert other[1].split() == ["baseline", "min-p:0.29512"]
    assert "min-p:0.29512, mean experts of each layer (from 0):" in other
    assert len(other[1]) == len(other[2]) > len(usual[1]) == len(usual[2])


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
    assert max(map(len, legend(Mode.PATCH).splitlines())) <= 80
