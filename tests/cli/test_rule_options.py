"""--rule and its short forms: what they come to together, and where they contradict each other."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from bh_studio import __main__ as program
from bh_studio.cli.rule_options import add_rules_options, add_sides_options, rules_from, sides_from
from bh_studio.engine.rules import CATALOGUE, RuleParameters, parse_rule

Add = Callable[[argparse.ArgumentParser], None]
ALPHAS = (0.01, 0.05, 0.1, 0.2)
EXAMPLES = [entry.example_text for entry in CATALOGUE.values()]


def parsed(add: Add, text: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add(parser)
    return parser.parse_args(text.split())


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ("", "bh:0.05"),
        ("--alpha 0.1", "bh:0.1"),
        ("--alpha 0.1 --max-k 6 --min-k 2", "bh:0.1,min_k=2,max_k=6"),
        ("--mode analyze --weights match", "bh:0.05,weights=match,mode=analyze"),
        ("--rule bh", "bh:0.05"),
        ("--rule bh --alpha 0.1", "bh:0.1"),
        ("--rule bh:0.1,null=pooled --max-k 6", "bh:0.1,null=pooled,max_k=6"),
        ("--rule top-k:5 --mode analyze", "top-k:5,mode=analyze"),
        # The limit follows the k of a text unless it is said.
        ("--rule top-k:12", "top-k:12"),
        ("--rule top-k:12 --max-k 10", "top-k:12,max_k=10"),
        # Together they are possible, each alone would not be.
        ("--rule bh:0.05,min_k=9 --max-k 12", "bh:0.05,min_k=9,max_k=12"),
        # Saying the same twice is no contradiction.
        ("--rule bh:0.050,max_k=8 --max-k 8 --alpha 0.05", "bh:0.05"),
        ("--rule bh:0.05,mode=analyze --mode analyze", "bh:0.05,mode=analyze"),
        ("--rule cut:0.04,temperature=2 --temperature 2.0", "cut:0.04,temperature=2"),
    ],
)
def test_short_forms_fill_in_what_a_text_leaves_out(options: str, rule: str) -> None:
    assert sides_from(parsed(add_sides_options, options)) == (None, parse_rule(rule))


@pytest.mark.parametrize("text", EXAMPLES)
def test_any_rule_can_be_named(text: str) -> None:
    assert sides_from(parsed(add_sides_options, f"--rule {text}")) == (None, parse_rule(text))


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ("--rule bh:0.05 --alpha 0.1", '--rule "bh:0.05"', "--alpha 0.1"),
        ("--rule bh:0.05/0.1 --alpha 0.05", '--rule "bh:0.05/0.1"', "--alpha 0.05"),
        ("--rule bh:0.05,max_k=6 --max-k 8", '--rule "bh:0.05,max_k=6"', "--max-k 8"),
        ("--rule top-k:5,min_k=2 --min-k 1", '--rule "top-k:5,min_k=2"', "--min-k 1"),
        ("--rule cut:0.1,temperature=2 --temperature 1", "temperature=2", "--temperature 1.0"),
        ("--rule bh,mode=analyze --mode patch", '--rule "bh,mode=analyze"', "--mode patch"),
        ("--rule bh,weights=match --weights model", "weights=match", "--weights model"),
    ],
)
def test_a_contradiction_names_both(options: str, first: str, second: str) -> None:
    with pytest.raises(ValueError, match="contradict each other; leave one of them out") as raised:
        sides_from(parsed(add_sides_options, options))
    assert first in str(raised.value)
    assert second in str(raised.value)


@pytest.mark.parametrize("text", EXAMPLES)
def test_alpha_is_the_level_of_bh_alone(text: str) -> None:
    arguments = parsed(add_sides_options, f"--rule {text} --alpha 0.05")
    if text == "bh:0.05":
        assert sides_from(arguments) == (None, RuleParameters())
        return
    with pytest.raises(ValueError, match=r"^--alpha is the level of bh, and --rule is ") as raised:
        sides_from(arguments)
    assert str(raised.value).endswith(f'"{text}"; leave --alpha out.')


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--alpha 1", "alpha must lie between 0 and 1"),
        ("--alpha nan", "alpha must lie between 0 and 1"),
        ("--min-k 9", "min_k must not exceed max_k"),
        ("--rule bh:0.05,min_k=9", "min_k must not exceed max_k"),
        ("--rule bh:0.05 --min-k 9", "min_k must not exceed max_k"),
        ("--rule top-k:5,null=all", "The rule top-k uses no null"),
    ],
)
def test_what_they_come_to_is_checked(options: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sides_from(parsed(add_sides_options, options))


@pytest.mark.parametrize("add", [add_sides_options, add_rules_options])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--rule top-k", 'a level is missing, as in "top-k:5"'),
        ("--rule bh:2", "alpha must lie between 0 and 1"),
        ("--rule bh:0.1,k=2", "'k=2' is not one of score=..."),
        ("--rule nonsense", "rule must be one of bh, by, storey"),
    ],
)
def test_a_text_that_is_wrong_is_a_wrong_argument(
    add: Add, options: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed(add, options)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


# Sides


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ("--rule bh:0.01 --rule top-k:5 --rule cut:0.1", [None, "bh:0.01", "top-k:5", "cut:0.1"]),
        ("--rule bh --rule bh:0.01,max_k=16 --no-own", ["bh:0.05", "bh:0.01,max_k=16"]),
        ("--no-own", ["bh:0.05"]),
        ("--no-own --max-k 6", ["bh:0.05,max_k=6"]),
        (
            "--no-own --rule top-k:1 --rule top-k:2 --rule top-k:3 --rule top-k:4",
            ["top-k:1", "top-k:2", "top-k:3", "top-k:4"],
        ),
    ],
)
def test_sides_are_the_models_own_routing_and_the_rules_in_order(
    options: str, sides: list[str | None]
) -> None:
    expected = tuple(side if side is None else parse_rule(side) for side in sides)
    assert sides_from(parsed(add_sides_options, options)) == expected


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (" ".join(f"--rule top-k:{k}" for k in range(1, 5)), "1 to 4 sides, .* got 5"),
        (f"--no-own {' '.join(f'--rule top-k:{k}' for k in range(1, 6))}", "got 5"),
        ("--rule bh --rule bh:0.05", "The rule bh:0.05 is given twice; give each once"),
        ("--rule bh --rule top-k:5 --max-k 6", "--max-k is for a single rule, and --rule is given"),
        ("--rule bh --rule top-k:5 --alpha 0.1", "2 times; say it in the text of each"),
    ],
)
def test_sides_that_cannot_be_are_refused(options: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sides_from(parsed(add_sides_options, options))


# Several rules


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ("", [f"bh:{alpha},max_k=16" for alpha in ALPHAS]),
        ("--max-k 6", [f"bh:{alpha},max_k=6" for alpha in ALPHAS]),
        ("--alphas 0.3 0.02", ["bh:0.3,max_k=16", "bh:0.02,max_k=16"]),
        ("--alphas 0.3 --mode analyze", ["bh:0.3,max_k=16,mode=analyze"]),
        # A text means the same here as in every command.
        ("--rule bh:0.01", ["bh:0.01"]),
        ("--rule bh:0.01 --rule top-k:5 --rule bh:0.1", ["bh:0.01", "top-k:5", "bh:0.1"]),
        ("--rule top-k:12 --rule bh --min-k 2", ["top-k:12,min_k=2", "bh:0.05,min_k=2"]),
        ("--rule top-k:5,max_k=6 --rule cut:0.1 --max-k 6", ["top-k:5,max_k=6", "cut:0.1,max_k=6"]),
    ],
)
def test_several_rules_come_in_their_order(options: str, rules: list[str]) -> None:
    arguments = parsed(add_rules_options, options)
    assert rules_from(arguments) == tuple(map(parse_rule, rules))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--rule bh:0.01 --alphas 0.1", "--rule and --alphas both say which rules to run"),
        ("--alphas 0.1 0.2 0.10", "^alpha 0.1 is given twice; give each once"),
        ("--rule top-k:5 --rule bh --rule top-k:5,min_k=1", "^The rule top-k:5 is given twice"),
        ("--alphas 0.1 1.5", "alpha must lie between 0 and 1, both excluded; got 1.5"),
        ("--alphas 0.1 --min-k 17", "min_k must not exceed max_k; got min_k=17, max_k=16"),
        ("--rule bh --rule top-k:5,max_k=6 --max-k 8", 'top-k:5,max_k=6" and --max-k 8 contradict'),
    ],
)
def test_several_rules_that_make_no_sense(options: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        rules_from(parsed(add_rules_options, options))


def test_a_prompt_after_the_alphas_is_taken_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(add_rules_options, "--alphas 0.1 Once")
    assert "Once is not a number; PROMPT goes before --alphas" in capsys.readouterr().err


# Help


@pytest.mark.parametrize("command", ["compare", "chat"])
def test_help_has_a_line_for_every_rule(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        program.main([command, "--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for entry in CATALOGUE.values():
        assert f"{entry.example_text} {entry.sentence}" in said
    assert "(bh:0.05)" in said
    assert "most experts of a token in a layer (8)" in said


@pytest.mark.parametrize("command", ["evaluate", "budget", "replay"])
def test_help_of_other_commands_names_every_rule(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        program.main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(text in said for text in EXAMPLES)


def test_analyze_is_a_mode_of_any_rule() -> None:
    arguments = parsed(add_sides_options, "--rule top-p:0.45,mode=analyze")
    assert sides_from(arguments) == (None, parse_rule("top-p:0.45,mode=analyze"))
