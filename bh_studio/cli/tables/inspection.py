"""One token of a session, seen by a rule: its layers, or the experts of one, as a table."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bh_studio.cli.tables.replay_session import NOTE, rule_label
from bh_studio.cli.tables.sides import analyze_notes
from bh_studio.cli.tables.table import aligned
from bh_studio.cli.terminal.columns import display_width, shorten
from bh_studio.cli.terminal.streams import terminal_width
from bh_studio.engine.records.decisions.token_inspection import InspectedLayer, InspectedToken
from bh_studio.engine.records.session import Session
from bh_studio.engine.rules.sides import side_letter

_WIDTH = 100
_LONGEST_TOKEN = 30
_TITLES = (
    "rank", "expert", "probability", "score", "p-value", "compared", "threshold", "weight", "",
)  # fmt: skip


class Place(NamedTuple):
    """A token of the answer of a side, both by number."""

    session: Session
    side: int
    token: int


def overview(place: Place, token: InspectedToken) -> str:
    """A line a layer: its counts, and the experts that are selected, best first."""
    cells: list[Sequence[str]] = [("layer", "experts", "before limits")]
    for number, layer in enumerate(token.layers):
        cells.append((str(number), str(layer.count), str(layer.raw_count)))
    head, *lines = aligned(cells)
    room = max(24, min(terminal_width(), _WIDTH) - display_width(head) - 2)
    rows = [f"{head}  selected, best first"]
    for line, layer in zip(lines, token.layers, strict=True):
        rows.append(f"{line}  {shorten(' '.join(map(str, layer.selected)), room)}")
    return "\n".join([_title(place, token), "", *rows, *_remarks(place, token)])


def layer_table(place: Place, token: InspectedToken, number: int) -> str:
    """A line an expert of one layer, in the order in which the rule takes them."""
    layer = token.layers[number]
    criterion = layer.criterion
    cells = [_TITLES, *(_expert(layer, rank) for rank in range(len(layer.experts)))]
    sentence = (
        f"Layer {number}: {layer.count} of {len(layer.experts)} experts, {layer.raw_count} before "
        f"the limits. compared: {criterion.points_name}{_single(criterion.points)}; threshold: "
        f"{criterion.line_name}{_single(criterion.line)}."
    )
    return "\n".join(
        [
            _title(place, token),
            *textwrap.wrap(sentence, _WIDTH),
            "",
            *aligned(cells),
            "",
            "*: selected.",
            *_remarks(place, token),
        ]
    )


def document(place: Place, token: InspectedToken, layer: int | None) -> dict[str, Any]:
    """The token as plain values, ready for json.dump. layer: the only one wanted; None for all."""
    found = token.to_json()
    layers = [{"layer": number, **values} for number, values in enumerate(found.pop("layers"))]
    record = place.session.records[place.side]
    return {
        **found,
        "side": side_letter(place.side),
        "is_own": _is_own(place, token),
        "token": place.token,
        "token_id": record.token_ids[place.token],
        "token_text": record.token_texts[place.token],
        "layers": layers if layer is None else layers[layer : layer + 1],
    }


def _title(place: Place, token: InspectedToken) -> str:
    text = place.session.records[place.side].token_texts[place.token]
    return shorten(
        f"Side {side_letter(place.side)}, token {place.token} "
        f"[{shorten(text, _LONGEST_TOKEN)}], by {rule_label(token.rule)}",
        _WIDTH,
    )


def _expert(layer: InspectedLayer, rank: int) -> tuple[str, ...]:
    criterion, is_selected = layer.criterion, rank < layer.count
    weight = "-" if layer.weights is None or not is_selected else f"{layer.weights[rank]:.4f}"
    return (
        str(rank + 1),
        str(layer.experts[rank]),
        f"{layer.probabilities[rank]:.4f}",
        _number(layer.scores[rank], ".4f"),
        "-" if layer.p_values is None else _number(layer.p_values[rank], ".4g"),
        _of_rank(criterion.points, rank),
        _of_rank(criterion.line, rank),
        weight,
        "*" if is_selected else "",
    )


def _of_rank(values: np.ndarray, rank: int) -> str:
    """One of the values of all ranks; a dash where there is a single one for all of them."""
    return "-" if len(values) == 1 else _number(values[rank], ".4g")


def _single(values: np.ndarray) -> str:
    """The single value for all ranks, to follow its name; empty where each has its own."""
    return f" ({_number(values[0], '.4g')})" if len(values) == 1 else ""


def _number(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else "-"


def _remarks(place: Place, token: InspectedToken) -> Iterator[str]:
    if not _is_own(place, token):
        yield from textwrap.wrap(NOTE, _WIDTH)
    else:
        others = [None] * place.side
        yield from analyze_notes([*others, token.rule])
    if token.shortage is not None:
        yield from textwrap.wrap(f"The null is small for this level. {token.shortage}", _WIDTH)
    if token.layers and token.layers[0].weights is None:
        yield from textwrap.wrap(
            "Weights are not shown: this session does not say whether its model scales them.",
            _WIDTH,
        )


def _is_own(place: Place, token: InspectedToken) -> bool:
    return token.rule == place.session.sides[place.side]
