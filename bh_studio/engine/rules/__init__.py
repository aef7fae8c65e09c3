"""The face of the rules: what there are, what one is as a value, and as a text. Loads no torch."""

from bh_studio.engine.rules.catalogue import CATALOGUE, LevelEffect, RuleEntry, RuleName
from bh_studio.engine.rules.names import MixingWeights, Mode, NullName, OnEmpty, ScoreName
from bh_studio.engine.rules.parameters import RouterShape, RuleParameters
from bh_studio.engine.rules.text import (
    RULE_SETTINGS,
    completed_rule,
    format_rule,
    parse_rule,
    read_rule,
    rule_title,
)

__all__ = [
    "CATALOGUE",
    "RULE_SETTINGS",
    "LevelEffect",
    "MixingWeights",
    "Mode",
    "NullName",
    "OnEmpty",
    "RouterShape",
    "RuleEntry",
    "RuleName",
    "RuleParameters",
    "ScoreName",
    "completed_rule",
    "format_rule",
    "parse_rule",
    "read_rule",
    "rule_title",
]
