"""The --chat and --system options: is a prompt a message to the model, or the start of a text?

An instruct model chats and a base model continues, unless the options say otherwise.
"""

from __future__ import annotations

import argparse
from typing import TypeVar

import msgspec

from bh_studio.cli.terminal.streams import EXIT_USAGE, CommandError, say
from bh_studio.engine.files.text import is_text
from bh_studio.engine.protocol.experiments import Batch, Comparison, Sweep, conversation_of
from bh_studio.engine.records.terms import Conversation, ModelInfo

D = TypeVar("D", bound=Comparison | Sweep | Batch)
_CHAT = "Chat: a prompt is a message, in the model's chat template; --no-chat continues it as text."
_PLAIN = "Plain text: the model continues the prompt, without its chat template."


def add_conversation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `settled` reads."""
    group = parser.add_argument_group("instruct models")
    add_system_option(group)
    group.add_argument(
        "--chat",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="take the prompt as a message, in the model's chat template (the default for a model "
        "that has one), or continue it as plain text",
    )


def add_system_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --system."""
    parser.add_argument(
        "--system", metavar="TEXT", help="system prompt, which precedes the conversation"
    )


def check_conversation_options(arguments: argparse.Namespace) -> None:
    """Raise CommandError for options that contradict each other or are no text."""
    if arguments.system is not None and arguments.chat is False:
        raise CommandError("--system is part of a chat; leave out --no-chat.", EXIT_USAGE)
    system_prompt(arguments)


def system_prompt(arguments: argparse.Namespace) -> str:
    """The system prompt; empty for none. Raises CommandError if it is not valid text."""
    system: str = arguments.system or ""
    if not is_text(system):
        raise CommandError("The system prompt is not valid UTF-8 text.", EXIT_USAGE)
    return system if system.strip() else ""


def as_options_say(arguments: argparse.Namespace, definition: D) -> D:
    """`definition` with what precedes its prompts, if the options say it whatever the model is."""
    if definition.conversation is not msgspec.UNSET:
        return definition
    if arguments.chat or arguments.system is not None:
        return msgspec.structs.replace(
            definition, conversation=Conversation(system_prompt(arguments))
        )
    return (
        definition
        if arguments.chat is None
        else msgspec.structs.replace(definition, conversation=None)
    )


def settled(arguments: argparse.Namespace, definition: D, model: ModelInfo) -> D:
    """`definition` with what precedes its prompts as the options say, or else the model.

    Says which it is, if that was left open and the model can do both.
    """
    if definition.conversation is not msgspec.UNSET:
        return definition
    asked = as_options_say(arguments, definition)
    conversation = conversation_of(asked, model)
    if model.has_chat_template:
        say(_PLAIN if conversation is None else _CHAT)
    return msgspec.structs.replace(asked, conversation=conversation)
