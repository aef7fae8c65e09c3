"""From one token to the next of those that a rule costs most, the largest KL first."""

from __future__ import annotations

import numpy as np

from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.rules.sides import side_letter
from bh_studio.ui.state.difference_stops import DifferenceStop

# As many as `compare --text` lists.
MOST_STOPS = 10


def next_kl_stop(
    result: SameTextResult, token: int | None, *, backwards: bool
) -> DifferenceStop | None:
    """The stop with the next smaller KL than that of `token`, or the next larger; round from the
    last one to the first.

    token: None where nothing is looked at. None if no side differs.
    """
    stops = result.most_different(MOST_STOPS)
    if not stops:
        return None
    place = stops.index(token) if token in stops else None
    if place is None:
        place, is_round = (len(stops) - 1 if backwards else 0), False
    else:
        step = -1 if backwards else 1
        is_round = not 0 <= place + step < len(stops)
        place = (place + step) % len(stops)
    stop = stops[place]
    kl = [reading.kl[stop] for reading in result.readings]
    side = int(np.argmax(kl))
    # Position i of a reading is about token i + 1 of the text.
    words = (
        f"KL of {side_letter(side)} to A is {kl[side]:.3f} nats at {stop + 1}, "
        f"number {place + 1} of the {len(stops)} largest"
    )
    if is_round:
        words = f"Back to the {'smallest of them' if backwards else 'largest'}: {words}"
    return DifferenceStop(stop, (side,), words)


def no_kl_words(result: SameTextResult) -> str:
    """Why there is no stop to go to, a sentence."""
    if len(result.readings) < 2:
        return "No other side has read the text to compare with A."
    return "All sides give every token the same probability."
