"""Session documents of earlier schema versions, brought up to the names of today. Knows no file."""

from __future__ import annotations

from typing import Any

# What a session of schema version 1 leaves unsaid of its rule: it knew no rule but BH.
_VERSION_1_RULE = {
    "rule": "bh", "on_empty": "min_k", "score": "probability", "null": "discarded",
}  # fmt: skip


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """`document`, of any version up to today's, under the names of today's.

    Raises KeyError, TypeError, ValueError or AttributeError for one that is damaged.
    """
    version = document["schema_version"]
    if version < 2:
        document = _from_1_to_2(document)
    if version < 3:
        document = _from_2_to_3(document)
    return document


def _from_1_to_2(document: dict[str, Any]) -> dict[str, Any]:
    rule = {**_VERSION_1_RULE, **document["parameters"]["rule"]}
    rule["level"] = rule.pop("alpha")
    return {**document, "parameters": {**document["parameters"], "rule": rule}}


def _from_2_to_3(document: dict[str, Any]) -> dict[str, Any]:
    """There were no conversations, so both sides read the same tokens."""
    shared = {"prompt_token_ids": document["prompt_token_ids"]}
    sides = {name: {**side, **shared} for name, side in document["sides"].items()}
    return {**document, "conversation": None, "sides": sides}
