"""What a side costs against the first where both read the same text, in words.

Measured values only; knows no widget.
"""

from __future__ import annotations

import math

import numpy as np

from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.ui.state.reading.side_numbers import kl_words, percent, perplexity_words
from bh_studio.ui.state.words import Part

# From there on a percentage is no number that one reads.
_MANY_TIMES = 10


def cost_parts(first: SideReading, reading: SideReading) -> list[Part]:
    """How far its predictions are from those of the first, and how well each predicts the text."""
    differing = float(np.mean(reading.ranks != first.ranks))
    kl = kl_words(reading)
    return [
        Part(f"{kl} nats", kl, 9),
        _perplexity(first, reading),
        Part(_best(first, reading), "", 3),
        Part(f"another rank at {percent(differing)} of tokens", "", 2),
    ]


def cost_meanings(first: str, side: str) -> list[str]:
    """What each part of cost_parts says, a line each."""
    return [
        f"KL: KL({first} || {side}), mean nats a token: how far the predictions of {side} are from "
        f"those of {first}; 0 where they are alike.",
        "Perplexity: e to the power of the mean of -ln p of the token that stands there, and by "
        f"how much it differs from that of {first}. Lower predicts the text better.",
        "Most probable: share of tokens that the side held more probable than all others. Rank: "
        f"place of the token by probability, where it is not that of {first}.",
    ]


def _perplexity(first: SideReading, reading: SideReading) -> Part:
    words = perplexity_words(reading)
    if reading.perplexity is None:
        return Part(words, "", 8)
    change = math.expm1(reading.nats - first.nats)
    if abs(change) < 5e-4:
        return Part(f"{words}, the same", "same perplexity", 8)
    if change > _MANY_TIMES:
        against = f"{change:.3g} times higher"
    else:
        against = f"{percent(abs(change))} {'lower' if change < 0 else 'higher'}"
    return Part(f"{words}, {against}", f"perplexity {against}", 8)


def _best(first: SideReading, reading: SideReading) -> str:
    mine, its = (float(np.mean(one.ranks == 1)) for one in (reading, first))
    return f"token most probable {percent(mine)}, in A {percent(its)}"
