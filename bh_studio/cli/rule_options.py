"""Options that name rules: --rule, its short forms, and what follows from both. Loads no torch."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bh_studio.engine.rules import (
    CATALOGUE,
    RULE_SETTINGS,
    MixingWeights,
    Mode,
    RuleName,
    RuleParameters,
    completed_rule,
    format_rule,
    parse_rule,
    read_rule,
)
from bh_studio.engine.rules.sides import check_sides

_DEFAULT = RuleParameters()
# What a sweep runs if it is not told, and the room that it leaves for its levels.
_ALPHAS = (0.01, 0.05, 0.1, 0.2)
_SWEPT = RuleParameters(max_k=16)
_WRITTEN = "RULE:LEVEL[,KEY=VALUE]..."
_EXAMPLES = ", ".join(entry.example_text for entry in CATALOGUE.values())
RULE_HELP = f"{_WRITTEN}, as in {_EXAMPLES}; one level a layer with slashes"
_RULE_BELOW = f"{_WRITTEN}, one of those below; one level a layer with slashes"
_SHORT_FORMS_HELP = "The others are short forms for what --rule leaves out."
_WIDTH = 79


class WrittenRule(NamedTuple):
    """What --rule was given, and what that says, by the fields of RuleParameters."""

    text: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _ShortForm:
    """An option that sets one field of a rule. keywords: for argparse."""

    option: str
    field: str
    help: str
    keywords: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.option.removeprefix("--").replace("-", "_")

    def default_in(self, rule: RuleParameters) -> str:
        """What it is in `rule`, for help texts."""
        value = getattr(rule, self.field)
        return f"{value:g}" if isinstance(value, float) else str(value)


_ALPHA = _ShortForm("--alpha", "level", "level of bh", {"type": float, "metavar": "A"})
_SHORT_FORMS = (
    _ALPHA,
    _ShortForm(
        "--temperature", "temperature", "divides the router logits before they are scored",
        {"type": float, "metavar": "T"},
    ),
    _ShortForm(
        "--min-k", "min_k", "fewest experts of a token in a layer", {"type": int, "metavar": "N"}
    ),
    _ShortForm(
        "--max-k", "max_k", "most experts of a token in a layer", {"type": int, "metavar": "N"}
    ),
    _ShortForm(
        "--mode", "mode", "patch: the rule decides; analyze: only count what it would do",
        {"choices": [mode.value for mode in Mode]},
    ),
    _ShortForm(
        "--weights", "weights",
        "mixing weights: the model's own, renormalized to sum 1, or matched to the sum that the "
        "model's own top-k would have",
        {"choices": [weights.value for weights in MixingWeights]},
    ),
)  # fmt: skip
# The names under which rule_values looks for them.
RULE_OPTIONS = ("rules", "own", *(short.name for short in _SHORT_FORMS))


def rule(text: str) -> RuleParameters:
    """An argparse type: the rule that `text` describes."""
    try:
        return parse_rule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def written_rule(text: str) -> WrittenRule:
    """An argparse type: what `text` says of a rule; short forms may say the rest."""
    try:
        return WrittenRule(text, read_rule(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_sides_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that sides_from reads: --rule, which may be given again, and --no-own."""
    group = parser.add_argument_group(
        "rules", "The others are short forms for what a single --rule leaves out."
    )
    _add_rules(group, help_text=f"{_RULE_BELOW} ({format_rule(_DEFAULT)})")
    _add_no_own(group)
    add_short_forms(group, default=_DEFAULT)
    explain_rules(parser)


def add_window_sides(group: argparse._ArgumentGroup, prefix: str) -> None:
    """Add the options that rules_values reads, and --no-own, each of which may be left out.

    prefix: of their names in the namespace.
    """
    _add_rules(group, prefix, RULE_HELP)
    _add_no_own(group, prefix, default=None)
    add_short_forms(group, prefix=prefix)


def add_rules_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that rules_from reads: --rule, which may be given again, or --alphas."""
    group = parser.add_argument_group(
        "rules",
        f"{_SHORT_FORMS_HELP} With --alphas, --max-k is {_SWEPT.max_k} unless it is given.",
    )
    _add_rules(group, help_text=_RULE_BELOW)
    group.add_argument(
        "--alphas",
        nargs="+",
        type=_alpha,
        metavar="A",
        help=f"instead of --rule: levels of bh, after PROMPT ({' '.join(map(str, _ALPHAS))})",
    )
    add_short_forms(group, default=_DEFAULT, has_alpha=False)
    explain_rules(parser)


def _add_rules(group: argparse._ArgumentGroup, prefix: str = "", help_text: str = "") -> None:
    group.add_argument(
        "--rule",
        dest=f"{prefix}rules",
        action="append",
        type=written_rule,
        metavar="RULE",
        help=f"a rule, may be given again: {help_text}",
    )


def _add_no_own(
    group: argparse._ArgumentGroup, prefix: str = "", *, default: bool | None = True
) -> None:
    group.add_argument(
        "--no-own",
        dest=f"{prefix}own",
        action="store_false",
        default=default,
        help="leave out the model's own routing, which is the first of at most four sides",
    )


def add_short_forms(
    group: argparse._ArgumentGroup,
    *,
    prefix: str = "",
    default: RuleParameters | None = None,
    has_alpha: bool = True,
) -> None:
    """Add the short forms of --rule; one that is not given is None.

    prefix: of their names in the namespace. default: what help texts name as the default.
    """
    for short in _SHORT_FORMS:
        if has_alpha or short is not _ALPHA:
            usual = "" if default is None else f" ({short.default_in(default)})"
            group.add_argument(
                short.option,
                dest=prefix + short.name,
                help=short.help + usual,
                **short.keywords,
            )


def explain_rules(parser: argparse.ArgumentParser) -> None:
    """End the help of `parser` with a line for each rule."""
    width = max(len(entry.example_text) for entry in CATALOGUE.values()) + 2
    rows = [f"  {entry.example_text:{width}}{entry.sentence}" for entry in CATALOGUE.values()]
    rows = [f"rules (KEY: {', '.join(RULE_SETTINGS)}):", *rows]
    indent = " " * (2 + width)
    lines = [line for row in rows for line in _wrapped(row, _WIDTH, indent)]
    parser.epilog = "\n\n".join(filter(None, [parser.epilog, "\n".join(lines)]))
    parser.formatter_class = _HelpFormatter


def rule_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """What --rule and its short forms say, by the fields of RuleParameters.

    given: values of the options by name, such as "max_k"; None and what is missing was not given.
    Raises ValueError where --rule and a short form contradict each other.
    """
    written: WrittenRule | None = given.get("rule")
    values = {} if written is None else dict(written.values)
    for short in _SHORT_FORMS:
        value = given.get(short.name)
        if value is None:
            continue
        if written is not None and short is _ALPHA and values["rule"] is not RuleName.BH:
            raise ValueError(
                f'--alpha is the level of bh, and --rule is "{written.text}"; leave --alpha out.'
            )
        if written is not None and values.get(short.field, value) != value:
            raise ValueError(
                f'--rule "{written.text}" and {short.option} {value} contradict each other; leave '
                "one of them out."
            )
        values[short.field] = value
    return values


def rules_values(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each --rule and the short forms say, by the fields of RuleParameters; nothing where none
    is given.

    given: values of the options by name. Raises ValueError where they contradict each other.
    """
    written: list[WrittenRule] = given.get("rules") or []
    if len(written) < 2:
        values = rule_values({**given, "rule": written[0] if written else None})
        return [values] if written or values else []
    for short in _SHORT_FORMS:
        if given.get(short.name) is not None:
            raise ValueError(
                f"{short.option} is for a single rule, and --rule is given {len(written)} "
                "times; say it in the text of each."
            )
    return [dict(one.values) for one in written]


def sides_from(arguments: argparse.Namespace) -> tuple[RuleParameters | None, ...]:
    """The sides that --rule, its short forms and --no-own ask for.

    Raises ValueError for values out of range, for options that contradict each other, and for sides
    that a comparison cannot have.
    """
    given = vars(arguments)
    rules = [completed_rule(values) for values in rules_values(given) or [{}]]
    sides = (None, *rules) if given["own"] else tuple(rules)
    check_sides(sides)
    return sides


def rules_from(arguments: argparse.Namespace) -> tuple[RuleParameters, ...]:
    """The rules that --rule, given as often as one likes, or --alphas asks for, all different.

    Raises ValueError for values out of range, for options that contradict each other, and for a
    rule that is given twice.
    """
    given = vars(arguments)
    written: list[WrittenRule] | None = given["rules"]
    alphas: list[float] | None = given["alphas"]
    if written is not None and alphas is not None:
        raise ValueError("--rule and --alphas both say which rules to run; leave one of them out.")
    if written is not None:
        rules = [completed_rule(rule_values({**given, "rule": one})) for one in written]
        names = [f"The rule {one.text}" for one in written]
    else:
        alphas = list(_ALPHAS) if alphas is None else alphas
        shared = {"max_k": _SWEPT.max_k, **rule_values(given)}
        rules = [completed_rule({**shared, "level": alpha}) for alpha in alphas]
        names = [f"alpha {alpha:g}" for alpha in alphas]
    for name, of_name in zip(names, rules, strict=True):
        if rules.count(of_name) > 1:
            raise ValueError(f"{name} is given twice; give each once.")
    return tuple(rules)


def _alpha(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not a number; PROMPT goes before --alphas"
        ) from None


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of `text` in which no rule and no option is broken at its hyphen."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves a text of several lines as it is, and wraps others."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(" ".join(text.split()), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)
