"""The turns of `bh-studio chat`: what each line does to the conversation."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from bh_studio.cli.loading import Loaded
from bh_studio.cli.options import output_file, saved_words, write_session
from bh_studio.cli.proving import warn_of
from bh_studio.cli.side_by_side import run_side_by_side
from bh_studio.cli.tables.comparison import turn_line
from bh_studio.cli.tables.proof import proof_lines
from bh_studio.cli.tables.sides import analyze_notes
from bh_studio.cli.terminal.chat_lines import is_typed
from bh_studio.cli.terminal.columns import shorten, wrap
from bh_studio.cli.terminal.interrupt import (
    forget_interrupt,
    put_off_interrupts,
    was_interrupted,
)
from bh_studio.cli.terminal.notices import Notices
from bh_studio.cli.terminal.streams import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    CommandError,
    print_result,
    say,
    terminal_width,
)
from bh_studio.engine.errors import EngineError
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.records.session import SUFFIX, Session
from bh_studio.engine.records.session_file import SESSION_WRITERS
from bh_studio.engine.records.terms import Conversation, FinishReason, GenerationParameters, Keep
from bh_studio.engine.rules.sides import Sides

COMMANDS = f"""\
/new          start a new conversation, with the same system prompt
/system TEXT  set the system prompt from the next turn on; without TEXT, leave it out
/save FILE    save the conversation: {SUFFIX} (with the last turn's counts), .json, .csv or .npz
/quit         end, as Ctrl+D does
Any other line is a message; one that starts with a slash needs a space before it.
Ctrl+C stops the answers and keeps what is there."""


class Chat:
    """The conversation so far and what the next line does to it.

    is_over: no further line is to be taken. exit_code: of the command, if it ended now.
    has_saved: whether the last turn is in the file at `out`.
    """

    def __init__(
        self,
        loaded: Loaded,
        sides: Sides,
        generation: GenerationParameters,
        keep: Keep,
        conversation: Conversation,
        out: Path | None,
        prove: bool = False,
    ) -> None:
        self.is_over = False
        self.exit_code = EXIT_OK
        self.has_saved = False
        self._loaded = loaded
        self._sides = tuple(sides)
        self._generation = generation
        self._keep_of_turns = keep
        self._conversation = conversation
        self._out = out
        self._prove = prove
        self._notices = Notices()
        self._session: Session | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/new": self._start_over,
            "/system": self._set_system,
            "/save": self._save,
            "/quit": self._quit,
            "/help": self._help,
        }

    def take(self, line: str) -> None:
        """Obey a command, or answer a message; what is wrong with it is said."""
        if not line.strip():
            return
        try:
            line.encode()
            if line.startswith("/"):
                self._obey(line)
            else:
                self._answer(line)
        except UnicodeEncodeError:
            self._refuse("The line is not valid UTF-8 text.")
        except (EngineError, CommandError) as error:
            self._refuse(str(error))

    def _answer(self, message: str) -> None:
        definition = Comparison(
            prompt=message,
            prove=self._prove,
            sides=self._sides,
            generation=self._generation,
            conversation=self._conversation,
            keep=self._keep_of_turns,
        )
        session = run_side_by_side(self._loaded, definition, self._notices)
        records = session.records
        if any(record.token_ids for record in records):
            self._session, self._conversation = session, session.continued or self._conversation
            with put_off_interrupts():
                self._keep(session)
        else:
            say("Stopped before the first token; the message is forgotten.")
        # A pipe goes on by itself, so there the interrupt is for all of it.
        if is_typed():
            forget_interrupt()
        elif was_interrupted() or any(r.finish_reason is FinishReason.STOPPED for r in records):
            self.is_over, self.exit_code = True, EXIT_INTERRUPTED

    def _keep(self, session: Session) -> None:
        numbers = [turn_line(session), *analyze_notes(self._sides)]
        lines = [part for line in numbers for part in wrap(line, terminal_width())]
        if session.proof is not None:
            lines += proof_lines(session.proof)
        is_read = print_result("\n".join([*lines, ""]))
        warn_of(session)
        # Without a reader the conversation goes on only for a file.
        self.is_over = not is_read and self._out is None
        if self._out is not None:
            self.has_saved = False
            try:
                write_session(session, self._out)
            except CommandError:
                self.exit_code = EXIT_FAILED
                raise
            self.has_saved = True

    def _obey(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            raise CommandError(f"There is no command {shorten(name, 20)}; /help lists them.")
        command(rest.strip())

    def _refuse(self, reason: str) -> None:
        say(reason)
        if not is_typed():
            self.exit_code = EXIT_FAILED

    def _start_over(self, _rest: str) -> None:
        self._conversation = Conversation(self._conversation.system)
        say("A new conversation.")

    def _set_system(self, text: str) -> None:
        self._conversation = Conversation(text, self._conversation.turns)
        say("The system prompt is set." if text else "There is no system prompt now.")

    def _save(self, name: str) -> None:
        if self._session is None:
            raise CommandError("There is nothing to save yet.")
        try:
            path = output_file(SESSION_WRITERS)(str(Path(name).expanduser()))
        except (argparse.ArgumentTypeError, RuntimeError) as error:
            raise CommandError(f"{error}.") from error
        write_session(self._session, path)
        say(saved_words(self._session, path))

    def _quit(self, _rest: str) -> None:
        self.is_over = True

    def _help(self, _rest: str) -> None:
        say(COMMANDS)
