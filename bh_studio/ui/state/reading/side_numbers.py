"""What one side made of the whole text, as numbers with their units. Knows no widget."""

from __future__ import annotations

from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.ui.state.run_model import RunModel


def perplexity_words(reading: SideReading) -> str:
    """Its perplexity; where that is more than a number can be, the nats a token."""
    perplexity = reading.perplexity
    if perplexity is None:
        return f"{reading.nats:.1f} nats a token"
    return f"perplexity {perplexity:.3f}"


def kl_words(reading: SideReading) -> str:
    """How far its predictions are from those of side A."""
    # Rounded, that of equal sides may be just below 0.
    return f"KL {max(0.0, reading.mean_kl):.4f}"


def limit_words(run: RunModel) -> str:
    """How often a limit decided in place of its rule; empty where none can."""
    least, most = run.statistics.share_clamped_min, run.statistics.share_clamped_max
    if run.about is None or not run.about.can_be_limited or least is None or most is None:
        return ""
    return f"min_k decided {percent(least)}, max_k {percent(most)}"


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{share * 100:.1f} %"
