"""What the sides made of one text, as rows for a CSV file."""

from __future__ import annotations

import csv
import io

from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.rules.sides import side_letter
from bh_studio.engine.rules.text import format_rule


def csv_text(result: SameTextResult) -> str:
    """A row a token and side, in the order of the text; the first token has no row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    layers = [f"experts_layer_{layer}" for layer in range(result.model.layers)]
    columns = ("position", "token_id", "token", "side", "rule", "log_probability", "rank", "kl")
    writer.writerow([*columns, *layers])
    for position in range(1, len(result.token_ids)):
        token = (position, result.token_ids[position], result.token_texts[position])
        for side, reading in enumerate(result.readings):
            rule = "" if reading.rule is None else format_rule(reading.rule)
            of_side = (
                reading.log_probabilities[position - 1],
                reading.ranks[position - 1],
                reading.kl[position - 1],
                *reading.counts[position - 1],
            )
            writer.writerow([*token, side_letter(side), rule, *of_side])
    return text.getvalue()
