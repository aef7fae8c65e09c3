"""The proof of a comparison: what was checked of it, and what came of that. Knows no file."""

from __future__ import annotations

from dataclasses import dataclass

from bh_studio.engine.architectures import MOST_LAYERS

# Far more than any proof of ours has, and little enough for the last line of a kept run.
_MOST_CHECKS = 12
_LONGEST_NAME, _LONGEST_TEXT = 40, 500
_MOST_POSITIONS, _MOST_NUMBERS = 2**24, 2**53


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    name: what, in a few words. passed: None if the check did not come to its end. compared: what
    was compared with what. positions, layers: of the model's reading that were looked at. numbers:
    how many numbers were compared in all. problem: a sentence that says where the first difference
    is, or why there was no end; empty if it passed.

    Raises ValueError for values that no check has.
    """

    name: str
    passed: bool | None
    compared: str
    positions: int
    layers: int
    numbers: int
    problem: str = ""

    def __post_init__(self) -> None:
        for field, longest in (
            ("name", _LONGEST_NAME),
            ("compared", _LONGEST_TEXT),
            ("problem", _LONGEST_TEXT),
        ):
            text = getattr(self, field)
            if len(text) > longest or not text.isprintable():
                raise ValueError(f"{field} of a check is no text of at most {longest} characters.")
        if not self.name:
            raise ValueError("a check has no name.")
        for field, most in (
            ("positions", _MOST_POSITIONS),
            ("layers", MOST_LAYERS),
            ("numbers", _MOST_NUMBERS),
        ):
            if not 0 <= getattr(self, field) <= most:
                raise ValueError(f"{field} of a check is {getattr(self, field)}.")
        if (self.passed is True) != (not self.problem):
            raise ValueError(f"the check {self.name} has passed and a problem, or neither.")


@dataclass(frozen=True, slots=True)
class Proof:
    """What was checked of a comparison after its sides had answered, in that order.

    Raises ValueError for no checks, or more than there are.
    """

    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.checks) <= _MOST_CHECKS:
            raise ValueError(f"a proof has {len(self.checks)} checks.")

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that found a difference."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def unfinished(self) -> tuple[Check, ...]:
        """The checks that did not come to their end."""
        return tuple(check for check in self.checks if check.passed is None)
