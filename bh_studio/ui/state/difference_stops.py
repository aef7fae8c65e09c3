"""From one difference to the next: the tokens in which sides part from side A."""

from __future__ import annotations

from dataclasses import dataclass

from bh_studio.engine.rules.sides import side_letter
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.state.words import listed


@dataclass(frozen=True, slots=True)
class DifferenceStop:
    """token: in which all of `sides` first differ from side A. words: which they are, and whether
    the way there went round."""

    token: int
    sides: tuple[int, ...]
    words: str


def next_difference(
    sides: RunSides, token: int | None, *, backwards: bool
) -> DifferenceStop | None:
    """The first stop behind `token`, or before it; round from the last one to the first.

    token: None where nothing is looked at. None if no side differs.
    """
    stops = sorted({part.token for part in sides.partings if part.token is not None})
    if not stops:
        return None
    if backwards:
        stops.reverse()
    ahead = [
        stop for stop in stops if token is None or (stop < token if backwards else stop > token)
    ]
    stop = ahead[0] if ahead else stops[0]
    parted = tuple(side for side, part in enumerate(sides.partings) if part.token == stop)
    verb = "differs" if len(parted) == 1 else "differ"
    words = f"{listed([side_letter(side) for side in parted])} {verb} from A at {stop}"
    if not ahead:
        words = f"No more differences, back to the {'last' if backwards else 'first'}: {words}"
    return DifferenceStop(stop, parted, words)


def no_difference_words(sides: RunSides) -> str:
    """Why there is no stop to go to, a sentence."""
    if len(sides.runs) < 2:
        return "There is no other side to compare with A."
    so_far = " so far" if any(run.is_running for run in sides.runs) else ""
    return f"No side differs from A{so_far}."
