"""The numbers over all prompts that end `bh-studio compare --prompts-file`."""

from __future__ import annotations

from bh_studio.cli.tables.answer_columns import decided, rule_column
from bh_studio.cli.tables.table import aligned, number, share
from bh_studio.engine.records.batch import PromptSummary
from bh_studio.engine.rules import RuleParameters
from bh_studio.engine.units import counted


def summary_text(summary: PromptSummary, rule: RuleParameters) -> str:
    """The numbers as lines. rule: that of the side beside the baseline's."""
    sides, rules, title = summary.sides, (None, rule), rule_column(rule)
    counts = [side.statistics for side in sides]
    table = (
        ("", "baseline", title),
        ("tokens", *(str(c.tokens) for c in counts)),
        ("tokens per second", *(number(side.tokens_per_second, 1) for side in sides)),
        ("mean experts", *(number(c.mean, 2) for c in counts)),
        ("std of experts", *(number(c.std, 2) for c in counts)),
        ("decided by min_k", *map(decided, rules, (c.share_clamped_min for c in counts))),
        ("decided by max_k", *map(decided, rules, (c.share_clamped_max for c in counts))),
    )
    layers = sides[1].statistics.per_layer_mean
    lines = ["", *aligned(table, left=1)]
    lines += ["", f"{title}, mean experts of each layer (from 0):"]
    lines += ["  " + "  ".join(f"{mean:.1f}" for mean in layers), ""]
    lines.append(
        f"{counted(summary.prompts, 'prompt')} done, {counted(summary.skipped, 'row')} skipped."
    )
    if summary.prompts:
        lines.append(
            f"The same token on both sides: {share(summary.agreement)} of {summary.positions} "
            f"positions; the same answer: {summary.identical} of {summary.prompts}."
        )
    return "\n".join(lines)
