"""Journals of earlier schema versions, brought up to the names of today. Knows no file."""

from __future__ import annotations

from typing import Any

from bh_studio.engine.records.rows import PROMPTS_FIELD
from bh_studio.engine.records.terms import FORMER_SIDE_NAMES
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule

Row = dict[str, Any]
# The command that made a result of version 1, and the kind of experiment it is today.
_KINDS = {"sweep": "sweep", "compare": "batch"}
# What rows of a batch said of the one rule beside the model's own routing.
_AGREEMENT = ("agreement", "matching_tokens", "first_difference")


def newest_version(kind: str) -> int:
    """The schema version of journals and results of `kind` that hold their rows, as of today."""
    return 3 if kind == "batch" else 2


def upgraded(header: Row, rows: list[Row]) -> tuple[Row, dict[str, Row]]:
    """A header and its rows by key, of any version up to today's, under the names of today's.

    Raises KeyError, TypeError, ValueError or AttributeError for what is damaged.
    """
    skipped = header.get("skipped", [])
    if "settings" in header:
        # Rows that were skipped before anything was asked have no key.
        rows = [*rows, *(row for row in skipped if "key" in row)]
        settings = header["settings"]
        if header.get("kind") == "batch" and isinstance(settings, dict):
            # No other could be named before it was among the settings.
            header = {**header, "settings": {"prompts_field": PROMPTS_FIELD, **settings}}
        keyed = {str(row["key"]): _without_key(row) for row in rows}
    else:
        keyed = {_key_from_1(header, row): row for row in [*rows, *skipped]}
        header = _header_from_1(header)
    if header.get("kind") != "batch" or header["schema_version"] > 2:
        return header, keyed
    return _batch_header_from_2(header), {key: _batch_row_from_2(row) for key, row in keyed.items()}


def _without_key(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "key"}


def _batch_header_from_2(header: Row) -> Row:
    settings = dict(header["settings"])
    sides = [None, *settings.pop("rules")]
    # The numbers of all follow from the rows.
    rest = {name: value for name, value in header.items() if name != "overall"}
    return {**rest, "settings": {**settings, "sides": sides}}


def _batch_row_from_2(row: Row) -> Row:
    """The sides were the model's own routing and one rule, under names."""
    if "reason" in row:
        return row
    agreement = {name: row[name] for name in _AGREEMENT}
    own, other = (row["sides"][name] for name in FORMER_SIDE_NAMES)
    rest = {name: value for name, value in row.items() if name not in _AGREEMENT}
    return {**rest, "sides": [own, {**agreement, **other}]}


def _header_from_1(header: Row) -> Row:
    kind = _KINDS[header["command"]]
    given = header["parameters"]
    # What results leave unsaid that were made before it could be otherwise.
    settings: Row = {"generation": given["generation"], "prompt_format": "plain text"}
    settings |= {n: header[n] for n in ("prompt_format", "system_prompt") if n in header}
    if kind == "sweep":
        settings["prompts"] = [header["prompt"]]
        settings["seeds"] = 1
        settings["rules"] = [
            format_rule(RuleParameters(**given["rule"], level=alpha)) for alpha in given["alphas"]
        ]
    else:
        settings["prompts_sha256"] = header["prompts_file"]["sha256"]
        settings["prompts_field"] = PROMPTS_FIELD
        settings["rules"] = [format_rule(RuleParameters(**given["rule"]))]
    return {**header, "kind": kind, "settings": settings}


def _key_from_1(header: Row, row: Row) -> str:
    if header["command"] == "compare":
        return str(int(row["line"]))
    alpha = row["alpha"]
    side = 0 if alpha is None else 1 + header["parameters"]["alphas"].index(alpha)
    return f"0 0 {side}"
