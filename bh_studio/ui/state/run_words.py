"""That a run began, and how it ended, in sentences to be heard. Measured values only."""

from __future__ import annotations

from bh_studio.engine.records.terms import FinishReason
from bh_studio.engine.units import counted
from bh_studio.ui.state.reading.side_numbers import kl_words, perplexity_words
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.run_sides import Parting, RunSides


def began_words(sides: int) -> str:
    """That so many sides answer now."""
    return f"The run has begun with {counted(sides, 'side')}."


def ended_words(sides: RunSides) -> str:
    """How the run ended, and of each side its length, its experts and where it parts from the
    first."""
    reasons = {run.finish_reason for run in sides.runs}
    ended = "was stopped" if FinishReason.STOPPED in reasons else "has ended"
    pairs = zip(sides.runs, sides.partings, strict=True)
    return " ".join((f"The run {ended}.", *(_side_words(run, parting) for run, parting in pairs)))


def _side_words(run: RunModel, parting: Parting) -> str:
    parts = [f"Side {run.name}: {counted(run.token_count, 'token')}"]
    if run.statistics.mean is not None:
        how = " counted" if run.is_counted_only else ""
        parts.append(f"{run.statistics.mean:.2f} experts a token and layer{how}")
    if run.reading is not None:
        parts += [perplexity_words(run.reading), kl_words(run.reading)]
    if parting.token is not None:
        parts.append(f"another token than A at {parting.token}")
    return f"{', '.join(parts)}."
