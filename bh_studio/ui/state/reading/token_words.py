"""What all sides made of one token of a text, in words. Knows no widget."""

from __future__ import annotations

import math

from bh_studio.ui.state.run_sides import RunSides


def token_words(sides: RunSides, token: int) -> str:
    """A line a side: how probable the token was, its rank and KL; empty where each side writes a
    text of its own."""
    lines = []
    for number, run in enumerate(sides.runs):
        reading = run.reading
        if reading is None or not 0 <= token < run.token_count:
            continue
        words = (
            f"{run.name}: p {math.exp(float(reading.log_probabilities[token])):.4g}, "
            f"rank {reading.ranks[token]:,}"
        )
        if number:
            words += f", KL to A {max(0.0, float(reading.kl[token])):.4f}"
        lines.append(words)
    return "\n".join(lines)
