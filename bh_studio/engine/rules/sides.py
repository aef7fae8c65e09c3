"""The sides of a comparison: how many there can be, and what people call them."""

from __future__ import annotations

from collections.abc import Sequence

from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule

Sides = Sequence[RuleParameters | None]
# As many answers as a person can follow at once.
MOST_SIDES = 4


def side_letter(side: int) -> str:
    """What people call a side; the first, A, is what the others are compared with."""
    return "ABCD"[side]


def check_number(sides: int) -> None:
    """Raise ValueError for more sides than a comparison can have, and for none."""
    if not 1 <= sides <= MOST_SIDES:
        raise ValueError(
            f"A comparison has 1 to {MOST_SIDES} sides, the model's own routing among them; "
            f"got {sides}."
        )


def check_sides(sides: Sides) -> None:
    """Raise ValueError for a number of `sides` that cannot be, and for two that are alike."""
    check_number(len(sides))
    for side, rule in enumerate(sides):
        if rule in sides[:side]:
            name = "The model's own routing" if rule is None else f"The rule {format_rule(rule)}"
            raise ValueError(f"{name} is given twice; give each once.")
