"""A budget as text for the terminal: the levels, where the experts go, and the check."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bh_studio.cli.tables.evaluation import gain, table
from bh_studio.cli.tables.table import aligned
from bh_studio.engine.records.budget import ACCEPTED, TOLERANCE, BudgetResult, Solution
from bh_studio.engine.records.evaluation import Contender, EvaluationResult
from bh_studio.engine.rules.text import format_rule
from bh_studio.engine.units import counted

_WIDTH = 100
ONE_LEVEL, BY_LAYER = "one level", "by layer"


def report(budget: BudgetResult) -> str:
    """What was found, in the order in which it matters."""
    lines = [
        f"Target: {budget.target:g} experts of a token in a layer on average. Fitted on "
        f"{budget.tokens:,} tokens of {counted(len(budget.texts), 'text')}."
    ]
    for name, solution in _named(budget):
        lines += ["", *_solution(name, solution)]
    if budget.by_layer is not None:
        lines += ["", *_layers(budget.one_level, budget.by_layer)]
    lines += ["", *_check(budget)]
    return "\n".join(lines)


def _named(budget: BudgetResult) -> list[tuple[str, Solution]]:
    return list(zip((ONE_LEVEL, BY_LAYER), budget.solutions, strict=False))


def _solution(name: str, solution: Solution) -> Iterator[str]:
    yield (
        f"{name}: {solution.mean:.3f} experts, {_miss(solution.miss)} "
        f"({counted(solution.passes, 'reading')} of the text)"
    )
    yield f"  {format_rule(solution.parameters)}"
    if solution.is_nearest_only:
        yield (
            f"  The mean jumps past the target here: no level comes within {TOLERANCE:.1%} of it."
        )
    if solution.shortage is not None:
        yield from textwrap.wrap(
            solution.shortage, _WIDTH, initial_indent="  ", subsequent_indent="  "
        )


def _layers(one_level: Solution, by_layer: Solution) -> Iterator[str]:
    """A line a layer: its level, and how many experts it uses with it and with one level."""
    rows = [("layer", by_layer.parameters.level_symbol, BY_LAYER, ONE_LEVEL)]
    levels = by_layer.parameters.levels(len(by_layer.per_layer))
    found = zip(levels, by_layer.per_layer, one_level.per_layer, strict=True)
    rows += [
        (str(layer), f"{level:.5g}", f"{mean:.2f}", f"{common:.2f}")
        for layer, (level, mean, common) in enumerate(found)
    ]
    yield from aligned(rows)
    if by_layer.allocation is not None:
        predicted = by_layer.allocation.predicted_kl * 1000
        yield f"Predicted KL x 1000: {predicted:.2f}, what the layers lose alone, added up."


def _check(budget: BudgetResult) -> Iterator[str]:
    if budget.check is None:
        yield "Not checked on other texts; --check PATH does that."
        return
    yield "On the texts of the check:"
    for name, solution in _named(budget):
        scores, miss = budget.checked(solution), budget.missed(solution)
        if scores is None or miss is None:
            continue
        yield f"  {name}: {scores.mean_experts.value:.3f} experts, {_miss(miss)}"
        if abs(miss) > ACCEPTED:
            yield (
                f"  That is more than {ACCEPTED:.0%} off: on texts like these the level does not "
                "hold; fit on texts like these."
            )
    yield ""
    yield table(_with_short_labels(budget, budget.check))
    gap = budget.gain()
    if gap is not None:
        yield ""
        yield f"{BY_LAYER} against {ONE_LEVEL}, nats a token x 100: {gain(gap)}."


def _miss(miss: float) -> str:
    return f"{miss:+.2%} off the target"


@dataclass(frozen=True, slots=True)
class _Short(Contender):
    """A contender under a name: a level a layer makes a label too long for a table."""

    name: str = ""

    @property
    def label(self) -> str:
        return self.name if self.control is None else f"{self.name} ({self.control})"


def _with_short_labels(budget: BudgetResult, check: EvaluationResult) -> EvaluationResult:
    names = {solution.parameters: name for name, solution in _named(budget)}
    contenders = tuple(
        c if c.parameters is None else _Short(c.parameters, c.control, c.means, names[c.parameters])
        for c in check.contenders
    )
    return replace(check, contenders=contenders)
