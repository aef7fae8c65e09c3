"""A token, what is tried on it and what keeps it from being compared, in words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bh_studio.engine.records.decisions.token_inspection import InspectedToken
from bh_studio.engine.rules.sides import side_letter
from bh_studio.ui.state.inspection.inspection_model import InspectionModel
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.run_sides import RunSides
from bh_studio.ui.widgets.visible_text import visible

KEPT_NOTE = "Recorded router logits are kept: in a real run later layers would differ."
# Below it the noughts in front take more room than an exponent.
_SMALL = 1e-3
_ARROW = "\N{RIGHTWARDS ARROW}"


def token_title(run: RunModel, token: int, text_of: Callable[[int], str | None]) -> str:
    """What the token is called, with its text. text_of: gives that of an id, if known."""
    name = f"Token {run.first_number + token}"
    if token >= run.token_count:
        return name
    if token >= 0:
        return f"{name} {quoted(run.token_texts[token])}"
    place = run.position(token)
    known = 0 <= place < len(run.prompt_token_ids)
    text = text_of(run.prompt_token_ids[place]) if known else None
    return f"Prompt token {place}" + ("" if text is None else f" {quoted(text)}")


def quoted(text: str) -> str:
    """A token's text on one line."""
    return f"“{visible(text, mark_newlines=True)}”"


def short_number(value: float, digits: int) -> str:
    """`value` with so many digits, in as few letters as they take: 0.012, 4.5e-4, 0."""
    if value == 0 or abs(value) >= _SMALL:
        return f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def mean_experts(run: RunModel, token: int) -> float | None:
    """Experts a layer that a side used at a token; None where it has none."""
    counts, row = (run.counts, token) if token >= 0 else (run.prompt_counts, token)
    if not -len(counts) <= row < len(counts):
        return None
    return float(counts[row].mean())


def parting_words(sides: RunSides, token: int) -> str:
    """Which sides have another text before this token, a sentence; empty if none has."""
    parted = [
        f"{side_letter(side)} from token {parting.token}"
        for side, parting in enumerate(sides.partings)
        if parting.token is not None and parting.token < token
    ]
    return f"Another text than A's: {', '.join(parted)} on." if parted else ""


def mismatch_words(run: RunModel, token: int, found: InspectedToken) -> str:
    """In which layers the run has counted something else, a sentence; empty if in none."""
    counts = run.counts[token] if token >= 0 else run.prompt_counts[token]
    here = [layer.count for layer in found.layers]
    layers = [str(layer) for layer in np.flatnonzero(counts != here)]
    if not layers:
        return ""
    return (
        "The run counted another number of experts than is computed here in layer"
        f"{'s' if len(layers) > 1 else ''} {', '.join(layers)}."
    )


def level_obstacle(run: RunModel) -> str:
    """Why no other level can be tried on a side, a sentence; empty if one can."""
    rule = None if run.about is None else run.about.rule
    if rule is None:
        return f"The model's own routing has no level: it takes {run.top_k} experts in every layer."
    if isinstance(rule.level, tuple):
        return "This rule has a level of its own for each layer, so there is no single one to try."
    return ""


def what_if_words(inspection: InspectionModel) -> str:
    """What another level changes: in the layer, at the token and in the whole run."""
    token, tried, layer = inspection.token, inspection.what_if, inspection.layer
    if token is None:
        return ""
    if tried is None or tried.position != token.position:
        tried = token
    parts = [
        _change("layer", str(token.layers[layer].count), str(tried.layers[layer].count)),
        _change("token", f"{_mean(token):.2f}", f"{_mean(tried):.2f}"),
    ]
    run = inspection.run
    if run is not None and run.statistics.mean is not None:
        stored = f"{run.statistics.mean:.2f}"
        if inspection.level is None:
            parts.append(_change("run", stored, stored))
        else:
            known = inspection.run_mean
            parts.append(_change("run", stored, "…" if known is None else f"{known:.2f}"))
    return "  ·  ".join(parts)


def _change(what: str, before: str, after: str) -> str:
    return f"{what} {before}" if before == after else f"{what} {before} {_ARROW} {after}"


def _mean(token: InspectedToken) -> float:
    return float(np.mean([layer.count for layer in token.layers]))
