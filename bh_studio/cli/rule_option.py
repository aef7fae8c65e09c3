"""The --rule option: rules as short texts. Imports nothing heavy."""

from __future__ import annotations

import argparse

from bh_studio.engine.rule_parameters import RuleParameters
from bh_studio.engine.rule_text import parse_rule

RULE_HELP = (
    'RULE:LEVEL[,KEY=VALUE]..., as in "bh:0.05", "top-k:5" or '
    '"top-p:0.45,max_k=16,weights=match"; one level a layer with slashes'
)


def rule(text: str) -> RuleParameters:
    """An argparse type: the rule that `text` describes."""
    try:
        return parse_rule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
