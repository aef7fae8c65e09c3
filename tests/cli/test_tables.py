"""What tables call a rule: BH by its name, any other by its text, in a column that holds it."""

from __future__ import annotations

from bh_studio.cli.tables.answer_columns import legend, rule_column
from bh_studio.cli.tables.batch_summary import summary_text
from bh_studio.engine.records.batch import PromptSummary
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
        summary_text(summary, *title).splitlines() for title in ((), ("min-p:0.29512",))
    )
    assert usual[1].split() == ["baseline", "BH"]
    assert "BH, mean experts of each layer (from 0):" in usual
    assert other[1].split() == ["baseline", "min-p:0.29512"]
    assert "min-p:0.29512, mean experts of each layer (from 0):" in other
    assert len(other[1]) == len(other[2]) > len(usual[1]) == len(usual[2])


def test_the_legend_says_whose_counts_are_simulated() -> None:
    assert legend(Mode.ANALYZE).endswith("own routing; BH's counts are simulated.")
    assert legend(Mode.ANALYZE, "top-k:5's counts").endswith("; top-k:5's counts are simulated.")
    assert "simulated" not in legend(Mode.PATCH)
    assert "BH" not in legend(Mode.PATCH)
    assert max(map(len, legend(Mode.PATCH).splitlines())) <= 80
