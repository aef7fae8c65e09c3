"""The rows of `bh-studio sweep`: as CSV and on the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from bh_studio.cli.tables.answer_columns import (
    CSV_AGREEMENT,
    CSV_ANSWER,
    TITLES,
    WIDTHS,
    cells,
    csv_agreement,
    csv_answer,
)
from bh_studio.cli.tables.table import line
from bh_studio.cli.terminal.columns import wrap
from bh_studio.cli.terminal.streams import terminal_width
from bh_studio.engine.records.estimates import LEVEL, Estimate
from bh_studio.engine.records.sweep import SweepResult, SweepRow
from bh_studio.engine.rules import RuleName, RuleParameters, format_rule
from bh_studio.engine.units import counted

_ALPHA_WIDTH = 8


def is_by_alpha(rules: Sequence[RuleParameters | None]) -> bool:
    """Whether the rules differ in the alpha of BH alone, so that it names them."""
    given = [rule for rule in rules if rule is not None]
    return all(
        r.rule is RuleName.BH and replace(r, level=given[0].level) == given[0] for r in given
    )


def table_head(rules: Sequence[RuleParameters | None]) -> str:
    """The titles of the table."""
    return line(("alpha" if is_by_alpha(rules) else "rule", *TITLES), _widths(rules))


def table_row(row: SweepRow, rules: Sequence[RuleParameters | None]) -> str:
    """The numbers of `row`, and below them its text. rules: all of the table."""
    numbers = line([_name(row, rules), *cells(row.rule, row.answer, row.agreement)], _widths(rules))
    text = wrap(row.answer.text.strip(), terminal_width() - 2)
    return "\n".join([numbers, *(f"  {part}".rstrip() for part in text), ""])


def summary_lines(result: SweepResult) -> list[str]:
    """Each routing over all prompts, with intervals; why there are none with a single prompt."""
    found = result.summaries()
    if not all(summary.experts.has_interval for summary in found):
        return ["One prompt says nothing of others, so there are no intervals over prompts."]
    answered = len(result.prompts) - len(result.refused)
    lines = [
        f"Over {counted(answered, 'prompt')}, {counted(result.seeds, 'seed')} each. "
        f"In brackets: {LEVEL:.0%} intervals, a bootstrap over prompts."
    ]
    for summary in found:
        name = "baseline" if summary.rule is None else format_rule(summary.rule)
        said = [f"{name}: {_estimate(summary.experts)} experts"]
        if summary.more_experts is not None:
            said.append(f"{_estimate(summary.more_experts, '+')} against the first rule, paired")
        if summary.same is not None:
            said.append(f"same token {_estimate(summary.same, '', 100)} %")
        lines.append("  " + ", ".join(said))
    return lines


def to_csv(rows: Sequence[SweepRow]) -> bytes:
    """One line a row; the baseline has no alpha and no rule."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["prompt", "seed", "rule", "alpha", *CSV_AGREEMENT, *CSV_ANSWER])
    for row in rows:
        named = [row.prompt, row.seed, row.rule and format_rule(row.rule), row.alpha]
        writer.writerow([*named, *csv_agreement(row.agreement), *csv_answer(row.answer)])
    return file.getvalue().encode()


def _name(row: SweepRow, rules: Sequence[RuleParameters | None]) -> str:
    if row.rule is None:
        return "baseline"
    return f"{row.alpha:g}" if is_by_alpha(rules) else format_rule(row.rule)


def _widths(rules: Sequence[RuleParameters | None]) -> tuple[int, ...]:
    if is_by_alpha(rules):
        return (_ALPHA_WIDTH, *WIDTHS)
    return (max(len(format_rule(rule)) for rule in rules if rule), *WIDTHS)


def _estimate(estimate: Estimate, sign: str = "", scale: float = 1.0) -> str:
    value, low, high = (scale * number for number in estimate)
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"
