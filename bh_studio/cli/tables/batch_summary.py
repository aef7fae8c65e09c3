"""The numbers over all prompts that end `bh-studio compare --prompts-file`."""

from __future__ import annotations

from bh_studio.cli.tables.answer_columns import decided
from bh_studio.cli.tables.sides import analyze_notes, layer_lines, title_lines
from bh_studio.cli.tables.table import aligned, number, share
from bh_studio.engine.records.batch import PromptSummary
from bh_studio.engine.rules.sides import Sides, side_letter
from bh_studio.engine.units import counted


def summary_text(summary: PromptSummary, sides: Sides, top_k: int) -> str:
    """The numbers as lines. top_k: experts that the model's own routing keeps."""
    found = summary.sides
    counts = [side.statistics for side in found]
    table = (
        ("", *(side_letter(side) for side in range(len(sides)))),
        ("tokens", *(str(c.tokens) for c in counts)),
        ("tokens per second", *(number(side.tokens_per_second, 1) for side in found)),
        ("mean experts", *(number(c.mean, 2) for c in counts)),
        ("std of experts", *(number(c.std, 2) for c in counts)),
        ("decided by min_k", *map(decided, sides, (c.share_clamped_min for c in counts))),
        ("decided by max_k", *map(decided, sides, (c.share_clamped_max for c in counts))),
    )
    lines = ["", *title_lines(sides, top_k), "", *aligned(table, left=1)]
    lines += layer_lines(sides, [c.per_layer_mean for c in counts])
    lines += analyze_notes(sides)
    lines += [
        "",
        f"{counted(summary.prompts, 'prompt')} done, {counted(summary.skipped, 'row')} skipped.",
    ]
    lines += [
        f"{side_letter(side)} has the token of A at {share(shared.agreement)} of "
        f"{shared.positions} positions; the same answer: {shared.identical} of {summary.prompts}."
        for side, shared in enumerate(summary.shared)
        if shared is not None and summary.prompts
    ]
    return "\n".join(lines)
