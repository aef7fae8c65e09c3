"""The diagnostics of a null as a table for the terminal. Knows no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bh_studio.cli.tables.table import aligned, number

if TYPE_CHECKING:
    from bh_studio.engine.records.diagnostics import NullDiagnostics

_WIDTH = 100


def table(diagnostics: NullDiagnostics, experts: int, top_k: int) -> str:
    """A line a layer, and how to read it. experts, top_k: of the model."""
    alpha = f"p <= {diagnostics.alpha:g}"
    rows = [("layer", "scores", "smallest p", "KS distance", alpha, "pi0")]
    for index, layer in enumerate(diagnostics.layers):
        smallest = "-" if layer.smallest_p is None else f"{layer.smallest_p:.1e}"
        cells = (
            str(index),
            "-" if layer.samples is None else f"{layer.samples:,}",
            smallest,
            number(layer.ks_distance, 3),
            f"{layer.null_share_at_alpha:.2%}",
            number(layer.pi0, 3),
        )
        rows.append(cells)
    lines = [*_wrapped(_title(diagnostics)), "", *aligned(rows)]
    for note in _notes(diagnostics, experts, top_k):
        lines += ["", *_wrapped(note)]
    return "\n".join(lines)


def _title(diagnostics: NullDiagnostics) -> str:
    tokens = diagnostics.fitted_tokens + diagnostics.held_out_tokens
    return (
        f'Null "{diagnostics.null}" of the score "{diagnostics.score}", {tokens:,} tokens a layer. '
        f"KS distance, p <= {diagnostics.alpha:g} and pi0: fitted on the first "
        f"{diagnostics.fitted_tokens:,}, held out the other {diagnostics.held_out_tokens:,}."
    )


def _notes(diagnostics: NullDiagnostics, experts: int, top_k: int) -> Iterator[str]:
    about = "the discarded experts" if diagnostics.is_about_discarded else "all experts"
    yield (
        f"KS distance: of the p-values of {about} of held-out tokens to the uniform distribution, "
        "0 to 1; a distance and no test, for the scores of a token depend on each other. "
        f"p <= {diagnostics.alpha:g}: the share of them there, which should be "
        f"{diagnostics.alpha * 100:g}%. pi0: estimated share of true nulls among all experts; the "
        f"model's own top {top_k} discards {1 - top_k / experts:.3f}."
    )
    yield (
        f"At alpha {diagnostics.alpha:g} BH selects a single expert of {experts} if its p is at "
        f"most {diagnostics.needed_p:.1e}."
    )
    for warning in diagnostics.warnings:
        yield f"Warning: {warning}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH)
