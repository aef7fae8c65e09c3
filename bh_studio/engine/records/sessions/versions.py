"""Session documents of earlier schema versions, brought up to the names of today. Knows no file."""

from __future__ import annotations

from typing import Any

from bh_studio.engine.records.terms import FORMER_SIDE_NAMES

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
    if version < 4:
        document = _from_3_to_4(document)
    return document


def array_name(document: dict[str, Any], side: int, name: str) -> str:
    """What the arrays of `document`, upgraded or not, call the array `name` of a side."""
    former = document["schema_version"] < 4
    return f"{FORMER_SIDE_NAMES[side] if former else side}_{name}"


def _from_1_to_2(document: dict[str, Any]) -> dict[str, Any]:
    rule = {**_VERSION_1_RULE, **document["parameters"]["rule"]}
    rule["level"] = rule.pop("alpha")
    return {**document, "parameters": {**document["parameters"], "rule": rule}}


def _from_2_to_3(document: dict[str, Any]) -> dict[str, Any]:
    """There were no conversations, so both sides read the same tokens."""
    shared = {"prompt_token_ids": document["prompt_token_ids"]}
    sides = {name: {**side, **shared} for name, side in document["sides"].items()}
    return {**document, "conversation": None, "sides": sides}


def _from_3_to_4(document: dict[str, Any]) -> dict[str, Any]:
    """The sides were the model's own routing and one rule, under names."""
    parameters, conversation = document["parameters"], document["conversation"]
    sides = [
        {"rule": rule, **document["sides"][name]}
        for name, rule in zip(FORMER_SIDE_NAMES, (None, parameters["rule"]), strict=True)
    ]
    if conversation is not None:
        turns = [
            {"prompt": turn["prompt"], "answers": [turn[name] for name in FORMER_SIDE_NAMES]}
            for turn in conversation["turns"]
        ]
        conversation = {"system": conversation["system"], "turns": turns}
    return {
        **document,
        "generation": parameters["generation"],
        "conversation": conversation,
        "sides": sides,
    }
