"""A rule as one short text, for the command line and the labels of tables: "bh:0.01,null=pooled".

    RULE[:LEVEL][,KEY=VALUE]...

LEVEL is a number, or one a layer with slashes between them ("top-k:8/7/6"); a single one for the
only layer of a model ends with a slash. Only "bh" has a default level. KEY is a field of
RuleParameters. What is left out has the default of that class; only the max_k of "top-k" is then at
least its k, so that "top-k:12" means 12.

Knows neither Qt nor torch; what the values mean is in `catalogue` and `parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from bh_studio.engine.rules.catalogue import CATALOGUE, RuleEntry, RuleName
from bh_studio.engine.rules.names import MixingWeights, Mode, NullName, OnEmpty, ScoreName
from bh_studio.engine.rules.parameters import RuleParameters

_E = TypeVar("_E", bound=StrEnum)
# float() and int() read more than a person means by a number: "1_0", "nan", other scripts' digits.
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[0-9]{1,9}")


def parse_rule(text: str) -> RuleParameters:
    """The rule that `text` describes. Raises ValueError with a sentence that quotes the text."""
    values = read_rule(text)
    try:
        return completed_rule(values)
    except ValueError as error:
        raise _unusable(text, error) from None


def read_rule(text: str) -> dict[str, Any]:
    """What `text` says of a rule, by the fields of RuleParameters, and nothing of the others.

    Raises ValueError, with a sentence that quotes the text, for what no other field could mend.
    """
    head, *settings = (part.strip() for part in text.split(","))
    name, colon, level_text = (part.strip() for part in head.partition(":"))
    try:
        rule = _member(RuleName, name, "rule")
        values: dict[str, Any] = {"rule": rule}
        if colon or rule is not RuleName.BH:
            values["level"] = _level(level_text, CATALOGUE[rule])
        for setting in settings:
            key, value = _setting(setting)
            if key in values:
                raise ValueError(f"{key} is given twice.")
            values[key] = value
        return values
    except ValueError as error:
        raise _unusable(text, error) from None


def completed_rule(values: Mapping[str, Any]) -> RuleParameters:
    """The rule with these fields, the others as described above.

    Raises ValueError as RuleParameters does.
    """
    values = dict(values)
    rule = values.get("rule", RuleName.BH)
    if CATALOGUE[rule].level_is_count and "level" in values:
        values.setdefault("max_k", _default_max_k(values["level"]))
    return RuleParameters(**values)


def format_rule(parameters: RuleParameters) -> str:
    """A short text that parse_rule reads back as `parameters`: its rule, its level, and of the rest
    what differs from the default."""
    default = RuleParameters()
    pieces = [f"{parameters.rule}:{_level_text(parameters.level)}"]
    for key in _SETTINGS:
        value = getattr(parameters, key)
        usual = getattr(default, key)
        if key == "max_k" and parameters.entry.level_is_count:
            usual = _default_max_k(parameters.level)
        if value != usual:
            pieces.append(f"{key}={_number_text(value) if key == 'temperature' else value}")
    return ",".join(pieces)


def rule_title(parameters: RuleParameters) -> str:
    """What people are told of the rule in a word: "BH", or the short text of another one."""
    return "BH" if parameters.rule is RuleName.BH else format_rule(parameters)


def _unusable(text: str, error: ValueError) -> ValueError:
    return ValueError(f"The rule {text!r} cannot be used: {error}")


def _level(text: str, entry: RuleEntry) -> float | tuple[float, ...]:
    if not text:
        raise ValueError(f'a level is missing, as in "{entry.example_text}".')
    level: float | tuple[float, ...]
    if "/" in text:
        level = tuple(_decimal(part, "the level") for part in text.removesuffix("/").split("/"))
    else:
        level = _decimal(text, "the level")
    entry.check_level(level)
    return level


def _level_text(level: float | tuple[float, ...]) -> str:
    if not isinstance(level, tuple):
        return _number_text(level)
    return "/".join(map(_number_text, level)) + ("/" if len(level) == 1 else "")


def _default_max_k(level: float | tuple[float, ...]) -> int:
    """As many as "top-k" asks for, so that the limit never changes what it means."""
    largest = max(level) if isinstance(level, tuple) else level
    # A k that is infinite or no whole number is refused later, in its own words.
    return int(max(RuleParameters().max_k, min(largest, 1e9)))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if key not in _SETTINGS or not equals:
        raise ValueError(f"{text!r} is not one of {', '.join(f'{k}=...' for k in _SETTINGS)}.")
    return key, _SETTINGS[key](value, key)


def _decimal(text: str, name: str) -> float:
    if not _DECIMAL.fullmatch(text.strip()):
        raise ValueError(f"{name} must be a number; got {text!r}.")
    return float(text)


def _whole(text: str, name: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{name} must be a whole number; got {text!r}.")
    return int(text)


def _member(kind: type[_E], text: str, name: str) -> _E:
    known = [member.value for member in kind]
    if text not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {text!r}.")
    return kind(text)


def _one_of(kind: type[StrEnum]) -> Callable[[str, str], StrEnum]:
    return lambda text, name: _member(kind, text, name)


def _number_text(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


_SETTINGS: dict[str, Callable[[str, str], Any]] = {
    "score": _one_of(ScoreName),
    "null": _one_of(NullName),
    "temperature": _decimal,
    "min_k": _whole,
    "max_k": _whole,
    "on_empty": _one_of(OnEmpty),
    "weights": _one_of(MixingWeights),
    "mode": _one_of(Mode),
}
# The keys that a text may have.
RULE_SETTINGS = tuple(_SETTINGS)
