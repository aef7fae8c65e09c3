"""Models, rules and what a run waits for, in words. Knows no widget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bh_studio.engine.protocol.experiments import Comparison, Experiment, SameText, kind_of
from bh_studio.engine.protocol.requests import (
    Body,
    InspectModel,
    JudgeNull,
    LoadModel,
    MeasureKl,
    RunKept,
    SaveCalibration,
)
from bh_studio.engine.records.terms import ModelInfo, Turn
from bh_studio.engine.rules import RuleName, RuleParameters
from bh_studio.engine.units import counted


class Part(NamedTuple):
    """A part of a line of words. brief: what says it where there is less room; empty for none.
    weight: of parts that do not fit the lightest is left out first."""

    words: str
    brief: str
    weight: int


# Of Benjamini and Hochberg, Benjamini and Yekutieli, higher criticism.
_ABBREVIATIONS = (RuleName.BH, RuleName.BY, RuleName.HIGHER_CRITICISM)


def waiting_words(awaited: Body | None) -> str:
    """When a run begins that waits for `awaited`, a sentence."""
    match awaited:
        case LoadModel():
            when = "the model is loaded"
        case InspectModel():
            when = "the other model has been looked at"
        case SaveCalibration():
            when = "the calibration is saved"
        case Comparison():
            when = "the run before has ended"
        case JudgeNull():
            when = "the null has been judged"
        case MeasureKl():
            when = "the answers before have been read"
        case RunKept(SameText()):
            when = "the text before has been read"
        case RunKept(experiment):
            when = f"the {kind_of(experiment)} gives way"
        case _ if isinstance(awaited, Experiment):
            when = f"the {kind_of(awaited)} gives way"
        case _:
            when = "the engine is free"
    return f"The run begins when {when}."


def listed(names: Sequence[str]) -> str:
    """One or more names, as in "A", "A and B" and "A, B and C"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def describe_top_k(model: ModelInfo) -> str:
    """The model's own routing in a few words."""
    return f"Model's own, top-{model.top_k} of {model.experts}"


def describe_rule(rule: RuleParameters, model: ModelInfo) -> str:
    """A rule's routing in a few words."""
    if rule.min_k == rule.max_k:
        limits = f"always {rule.min_k}"
    else:
        limits = f"{rule.min_k} to {rule.max_k}"
    usual = RuleParameters()
    others = [
        f"{name} {value}"
        for name in ("null", "score", "weights")
        if (value := getattr(rule, name)) != getattr(usual, name)
    ]
    if rule.temperature != usual.temperature:
        others.append(f"temperature {rule.temperature:g}")
    if rule.on_empty is not usual.on_empty:
        others.append(f"{rule.on_empty} where it selects none")
    return ", ".join(
        [f"{rule_name(rule.rule)} {rule.level_text}", f"{limits} of {model.experts}", *others]
    )


def rule_name(rule: RuleName) -> str:
    """What people call a rule: abbreviations of names in capitals, others as they are written."""
    return rule.upper() if rule in _ABBREVIATIONS else str(rule)


def describe_model(model: ModelInfo) -> str:
    """The model in one line."""
    return (
        f"{model.name}  ·  {format_parameters(model.parameter_count)} parameters  ·  "
        f"{model.layers} layers × {model.experts} experts, top-{model.top_k}  ·  "
        f"{model.dtype} on {model.device}"
    )


def format_parameters(count: int) -> str:
    """A parameter count with three digits, such as 11.2 M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def misfit_words(turns: Sequence[Turn], sides: int) -> str:
    """Why so many sides cannot answer what follows `turns`, a sentence; empty if they can."""
    answered = len(turns[0].answers) if turns else sides
    if answered == sides:
        return ""
    return (
        f"The turns so far were answered by {counted(answered, 'side')}, and now there "
        f"{'is' if sides == 1 else 'are'} {sides}; set as many, or begin a new conversation."
    )
