"""What the sides made of one text, as a table for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from bh_studio.cli.tables.answer_columns import decided
from bh_studio.cli.tables.sides import drift_lines
from bh_studio.cli.tables.table import aligned, number
from bh_studio.cli.terminal.columns import display_width, shorten
from bh_studio.cli.terminal.streams import terminal_width
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.rules import Mode, format_rule
from bh_studio.engine.rules.sides import side_letter

_TITLES = ("nats", "perplexity", "KL to A", "experts", "min_k", "max_k")
_LONGEST_TITLE = 44
_MOST_POSITIONS = 10
_WIDTH = 100
# Tokens before and after one, more than there is room for.
_AROUND = 40
_LEGEND = (
    "nats: mean of -ln p of the token that stands there; perplexity: e to the power of that. KL to "
    "A: KL(A || side), mean nats a token. experts: over tokens and layers, while the token before "
    "is read; min_k, max_k: share in which that limit, not the rule, decided."
)
_DIFFERENT = "Where KL to A is largest; tokens are counted from 0."
_RANKS = "rank: place of the token by probability, from 1; equals share the best."


def table(result: SameTextResult) -> str:
    """A line a side, and the tokens at which the others differ most from the first."""
    rows: list[tuple[str, ...]] = [("", *_TITLES)]
    rows += [_numbers(result, *numbered) for numbered in enumerate(result.readings)]
    lines = [_title(result), "", *aligned(rows, left=1), "", *textwrap.wrap(_LEGEND, _WIDTH)]
    lines += _analyze_notes(result)
    lines += drift_lines(result.sides, [reading.drift for reading in result.readings])
    if len(result.readings) > 1:
        lines += ["", *_differences(result)]
    if not result.is_complete:
        lines += ["", "Not complete: it was stopped before all sides had read the text."]
    return "\n".join(lines)


def _title(result: SameTextResult) -> str:
    tokens = len(result.token_ids)
    return (
        f"{result.text_name}: {tokens:,} tokens. Each side predicts {tokens - 1:,} of them, all "
        "but the first, from those before."
    )


def _numbers(result: SameTextResult, side: int, reading: SideReading) -> tuple[str, ...]:
    rule, statistics = reading.rule, reading.statistics
    title = f"baseline (top {result.model.top_k})" if rule is None else format_rule(rule)
    return (
        shorten(f"{side_letter(side)}: {title}", _LONGEST_TITLE),
        f"{reading.nats:.4f}",
        number(reading.perplexity, 3),
        # Rounded, that of equal sides may be just below 0.
        f"{max(0.0, reading.mean_kl):.4f}",
        number(statistics.mean, 2),
        decided(rule, statistics.share_clamped_min),
        decided(rule, statistics.share_clamped_max),
    )


def _analyze_notes(result: SameTextResult) -> Iterator[str]:
    for side, reading in enumerate(result.readings):
        if reading.rule is not None and reading.rule.mode is Mode.ANALYZE:
            yield (
                f"Analyze: {side_letter(side)} used the model's own routing; its counts are "
                "simulated."
            )


def _differences(result: SameTextResult) -> Iterator[str]:
    positions = result.most_different(_MOST_POSITIONS)
    if not positions:
        yield "All sides give every token the same probability."
        return
    letters = [side_letter(side) for side in range(len(result.readings))]
    titles = ["token", *(f"KL {letter}" for letter in letters[1:])]
    titles += [f"rank {letter}" for letter in letters]
    rows: list[Sequence[str]] = [titles]
    for position in positions:
        divergences = [f"{reading.kl[position]:.3f}" for reading in result.readings[1:]]
        ranks = [f"{reading.ranks[position]:,}" for reading in result.readings]
        rows.append([str(position + 1), *divergences, *ranks])
    head, *lines = aligned(rows)
    room = max(24, min(terminal_width(), _WIDTH) - display_width(head) - 2)
    yield _DIFFERENT
    yield _RANKS
    yield f"{head}  text"
    for line, position in zip(lines, positions, strict=True):
        yield f"{line}  {_in_context(result.token_texts, position + 1, room)}"


def _in_context(texts: Sequence[str], token: int, room: int) -> str:
    """The token in brackets in the midst of the text around it, in at most `room` columns."""
    before = "".join(texts[max(0, token - _AROUND) : token])
    left = before
    while display_width(left) > room // 2:
        left = left[1:]
    mark = "" if left == before else "…"
    after = "".join(texts[token + 1 : token + 1 + _AROUND])
    return shorten(f"{mark}{left}[{texts[token][: room // 4]}]{after}", room)
