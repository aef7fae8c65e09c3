"""`bh-studio chat`: a conversation with an instruct model, the answers in columns."""

from __future__ import annotations

import argparse
from pathlib import Path

from bh_studio.cli.commands.chat_turns import COMMANDS, Chat
from bh_studio.cli.conversation import add_system_option, system_prompt
from bh_studio.cli.loading import load
from bh_studio.cli.options import (
    add_calibration_option,
    add_generation_options,
    add_history_option,
    add_keep_option,
    add_model_option,
    generation_parameters,
    history_folder,
    keep_of,
    output_file,
)
from bh_studio.cli.proving import add_prove_option
from bh_studio.cli.rule_options import add_sides_options, sides_from
from bh_studio.cli.sessions import read_session
from bh_studio.cli.terminal.chat_lines import is_typed, read_lines
from bh_studio.cli.terminal.columns import shorten
from bh_studio.cli.terminal.streams import EXIT_USAGE, CommandError, say
from bh_studio.engine.records.session import SUFFIX
from bh_studio.engine.records.session_file import SESSION_WRITERS
from bh_studio.engine.records.terms import Conversation
from bh_studio.engine.rules import format_rule
from bh_studio.engine.rules.sides import Sides
from bh_studio.engine.units import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Talk to an instruct model, a line a turn, from the terminal or a pipe.\n"
        "The answers are printed side by side, and each side remembers its own."
    )
    parser.epilog = f"instead of a message:\n{COMMANDS}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_model_option(parser)
    add_calibration_option(parser)
    add_system_option(parser)
    parser.add_argument(
        "--continue",
        dest="former",
        type=Path,
        metavar="FILE",
        help=f"go on with the conversation of a saved {SUFFIX}, or of the folder of a kept run",
    )
    add_sides_options(parser)
    add_generation_options(parser)
    parser.add_argument(
        "--out",
        type=output_file(SESSION_WRITERS),
        metavar="FILE",
        help=f"save after each turn: {SUFFIX} (all that was said, the counts of the last turn), "
        ".json, .csv or .npz (which experts ran in the last turn)",
    )
    add_keep_option(parser)
    add_history_option(parser)
    add_prove_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        sides, generation = sides_from(arguments), generation_parameters(arguments)
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error
    conversation = _first_conversation(arguments, sides)
    loaded = load(arguments, arguments.calibration, history_folder(arguments))
    loaded.info.check_chat_template()
    for rule in sides:
        if rule is not None:
            rule.check_shape(loaded.info.layers, loaded.info.experts)
    if is_typed():
        say(f"A conversation with {loaded.info.name}. /help lists what else can be typed.")
    keep, prove = keep_of(arguments), arguments.prove
    chat = Chat(loaded, sides, generation, keep, conversation, arguments.out, prove)
    for line in read_lines():
        chat.take(line)
        if chat.is_over:
            break
    if chat.has_saved:
        say(f"Saved {arguments.out}")
    return chat.exit_code


def _first_conversation(arguments: argparse.Namespace, sides: Sides) -> Conversation:
    """What precedes the first line.

    Raises CommandError for a session that is no conversation, or whose answers are not those of
    such `sides`.
    """
    system = system_prompt(arguments)
    if arguments.former is None:
        return Conversation(system)
    session = read_session(arguments.former)
    former = session.continued
    if former is None:
        raise CommandError(f"{arguments.former} is a run of plain text, no chat.", EXIT_USAGE)
    if former.turns and _are_own(session.sides) != _are_own(sides):
        raise CommandError(
            f"{arguments.former} has the sides {_named(session.sides)}, this chat would have "
            f"{_named(sides)}; give as many with --rule, and --no-own if the model's own is not "
            "among them.",
            EXIT_USAGE,
        )
    if former.turns:
        turns = counted(len(former.turns), "earlier turn")
        say(f"After {turns}, the last of them: {shorten(former.turns[-1].prompt, 60)}")
    return former if arguments.system is None else Conversation(system, former.turns)


def _named(sides: Sides) -> str:
    return ", ".join("own" if rule is None else format_rule(rule) for rule in sides)


def _are_own(sides: Sides) -> list[bool]:
    return [rule is None for rule in sides]
