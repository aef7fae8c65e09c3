"""What of a rule the window's page has controls for. Knows no widget, so that it loads no Qt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bh_studio.engine.rules import RuleParameters

_SHOWN = ("level", "temperature", "min_k", "max_k", "mode", "weights")
_DEFAULT = RuleParameters()


def rule_problem(values: Mapping[str, Any]) -> str:
    """Why the page cannot show a rule with these fields, a sentence; empty if it can."""
    hidden = [
        f"{name}={value}"
        for name, value in values.items()
        if name not in _SHOWN and value != getattr(_DEFAULT, name)
    ]
    if isinstance(values.get("level"), tuple):
        hidden.append("a level for each layer")
    if not hidden:
        return ""
    return (
        f"The window has no control for {', '.join(hidden)}: it knows bh, with one alpha for all "
        "layers and the null of the layer. bh-studio compare takes every rule."
    )
