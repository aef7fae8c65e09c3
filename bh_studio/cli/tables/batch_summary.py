"""The numbers over all prompts that end `bh-studio compare --prompts-file`."""

from __future__ import annotations

from bh_studio.cli.tables.table import line, number, share
from bh_studio.engine.records.batch import PromptSummary
from bh_studio.engine.units import counted


def summary_text(summary: PromptSummary, title: str = "BH") -> str:
    """The numbers as lines. title: of the column beside the baseline's."""
    sides = summary.sides
    widths = (12, max(12, len(title) + 2))
    counts = [side.statistics for side in sides]
    table = (
        ("", ["baseline", title]),
        ("tokens", [str(c.tokens) for c in counts]),
        ("tokens per second", [number(side.tokens_per_second, 1) for side in sides]),
        ("mean experts", [number(c.mean, 2) for c in counts]),
        ("std of experts", [number(c.std, 2) for c in counts]),
        ("decided by min_k", [share(c.share_clamped_min) for c in counts]),
        ("decided by max_k", [share(c.share_clamped_max) for c in counts]),
    )
    layers = sides[1].statistics.per_layer_mean
    lines = ["", *(f"{label:24}{line(cells, widths)}" for label, cells in table)]
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
