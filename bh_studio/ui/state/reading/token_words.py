"""What all sides made of one token of a text, in words. Knows no widget."""

from __future__ import annotations

import math

from bh_studio.ui.state.run_sides import RunSides


def token_words(sides: RunSides, token: int) -> str:
    """A line a side: how probable the token was, its rank and KL. Where each side writes a text of
    its own, of every one but A the KL, as far as it is known."""
    lines = []
    for number, run in enumerate(sides.runs):
        reading, kl = run.reading, run.kl
        if kl is None or not 0 <= token < min(run.token_count, len(kl)):
            continue
        kl_to_first = f"KL to A {max(0.0, float(kl[token])):.4f}"
        if reading is None:
            if number:
                lines.append(f"{run.name}: {kl_to_first}")
            continue
        words = (
            f"{run.name}: p {math.exp(float(reading.log_probabilities[token])):.4g}, "
            f"rank {reading.ranks[token]:,}"
        )
        if number:
            words += f", {kl_to_first}"
        lines.append(words)
    return "\n".join(lines)
