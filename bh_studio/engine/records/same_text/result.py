"""What the sides made of one text: the record of the experiment, and its document.

Knows arrays, no model and no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.sides import check_number, side_letter
from bh_studio.engine.rules.text import format_rule, parse_rule


@dataclass(frozen=True, slots=True, eq=False)
class SameTextResult:
    """What each of `sides` makes of the same text. The others are compared with the first.

    text_name, text_sha256: of the text. token_ids, token_texts: of all its tokens; together the
    texts are the text, and one that ends within a character is empty. readings: of the sides, in
    order; position i of a reading is about token i + 1, for nothing predicts the first.
    is_complete: False if it was stopped, so that the last sides have no reading.

    Raises ValueError for readings that are not those of the sides, the tokens and the model.
    """

    model: ModelInfo
    text_name: str
    text_sha256: str
    token_ids: tuple[int, ...]
    token_texts: tuple[str, ...]
    sides: tuple[RuleParameters | None, ...]
    readings: tuple[SideReading, ...]
    is_complete: bool
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        positions = len(self.token_ids) - 1
        if positions < 1 or len(self.token_texts) != len(self.token_ids):
            raise ValueError("its tokens are those of no text.")
        is_whole = len(self.readings) == len(self.sides)
        if not 1 <= len(self.readings) <= len(self.sides) or self.is_complete is not is_whole:
            raise ValueError("its rows are not those of its sides.")
        for rule, reading in zip(self.sides, self.readings, strict=False):
            if not reading.fits(rule, positions, self.model.layers, self.model.experts):
                raise ValueError("its rows are not those of its text.")

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What is in a file that holds its rows. Raises KeyError, TypeError or ValueError."""
        text = convert(_Text, document["text"], "text")
        rules = convert(tuple[str | None, ...], document["settings"]["sides"], "settings.sides")
        check_number(len(rules))
        keyed = {str(row["key"]): SideReading.from_json(row) for row in document["rows"]}
        keys = [key for key in map(side_key, range(len(rules))) if key in keyed]
        if keys != [side_key(side) for side in range(len(keyed))]:
            raise ValueError("its rows are not those of its sides.")
        return cls(
            model=convert(ModelInfo, document["model"], "model"),
            text_name=text.name,
            text_sha256=text.sha256,
            token_ids=convert(tuple[int, ...], document["token_ids"], "token_ids"),
            token_texts=convert(tuple[str, ...], document["token_texts"], "token_texts"),
            sides=tuple(None if rule is None else parse_rule(rule) for rule in rules),
            readings=tuple(keyed[key] for key in keys),
            is_complete=convert(bool, document["complete"], "complete"),
            environment=convert(dict[str, Any], document["environment"], "environment"),
        )

    def most_different(self, most: int) -> list[int]:
        """At most `most` positions where a side differs from A, by the largest KL, that first."""
        largest = np.max([reading.kl for reading in self.readings], axis=0)
        order = np.argsort(-largest, kind="stable")[:most]
        return [int(position) for position in order if largest[position] > 0]

    def to_json(self) -> dict[str, Any]:
        """The result as a document for json.dump, without the rows, which are the readings."""
        return {
            "text": asdict(_Text(self.text_name, self.text_sha256)),
            "token_ids": list(self.token_ids),
            "token_texts": list(self.token_texts),
            "predicted_tokens": len(self.token_ids) - 1,
            "totals": [_totals(side, reading) for side, reading in enumerate(self.readings)],
            "environment": self.environment,
        }


@dataclass(frozen=True, slots=True)
class _Text:
    """The text, as the document names it."""

    name: str
    sha256: str


def side_key(side: int) -> str:
    """The name of the reading of one side, counted from 0, among all rows."""
    return f"side {side}"


def _totals(side: int, reading: SideReading) -> dict[str, Any]:
    return {
        "side": side_letter(side),
        "rule": None if reading.rule is None else format_rule(reading.rule),
        "nats": reading.nats,
        "perplexity": reading.perplexity,
        "kl": reading.mean_kl,
        "experts": reading.statistics.to_dict(),
        "drift": None if reading.drift is None else reading.drift.to_json(),
    }
