"""Keeps each comparison in a folder of its own while it goes on, whoever asked for it."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET

from bh_studio.engine.errors import Cancelled, EngineError, as_sentence
from bh_studio.engine.protocol.events import (
    Event,
    Finished,
    KeptIn,
    Notice,
    PromptRead,
    RunBegan,
    SideFinished,
    TokenGenerated,
)
from bh_studio.engine.records.result_document import now
from bh_studio.engine.records.runs.kept import new_run_folder
from bh_studio.engine.records.runs.lines import (
    ChoiceLine,
    EndLine,
    Line,
    NoticeLine,
    PromptLine,
    RunEnd,
    SideLine,
    TokenLine,
)
from bh_studio.engine.records.runs.writer import RunWriter

if TYPE_CHECKING:
    from bh_studio.engine.records.decisions.decision import Decision
    from bh_studio.engine.records.proofs.proof import Proof
    from bh_studio.engine.records.runs.lines import RunHeader

Events = Generator[Event, None, None]

_log = logging.getLogger(__name__)


def kept(events: Events, history: Path) -> Events:
    """`events` of a comparison, each of which is in a folder of `history` soon after it is told.

    A run of which no prompt was read leaves none. What the disk refuses is told as a Notice, and
    the run goes on. Raises what `events` raise.
    """
    keeper = RunKeeper(history)
    with closing(events):
        try:
            for event in events:
                yield from keeper.take(event)
                yield event
        except (Cancelled, GeneratorExit):
            keeper.end(RunEnd.STOPPED)
            raise
        except BaseException as error:
            message = error.message if isinstance(error, EngineError) else str(error)
            keeper.end(RunEnd.FAILED, message)
            raise


class RunKeeper:
    """Writes what one comparison says into a new folder of `history`."""

    def __init__(self, history: Path) -> None:
        self._history = history
        self._header: RunHeader | None = None
        self._writer: RunWriter | None = None
        self._early: list[Line] = []
        self._has_told = self._has_ended = False

    def take(self, event: Event) -> Iterator[Event]:
        """Keep `event`; what has to be told before it."""
        match event:
            case RunBegan(header):
                self._header = header
            case PromptRead(side, counts, raw, decision):
                if self._header is not None:
                    yield from self._open(self._header)
                experts = None if decision is None else decision.experts.tobytes()
                self._add(PromptLine(side, counts.tolist(), raw.tolist(), experts), decision)
            case TokenGenerated():
                self._add(_token_line(event), event.decision)
            case SideFinished(side, tail, record):
                self._add(SideLine(side, tail, record.finish_reason, record.drift))
            case Notice(text):
                self._add(NoticeLine(text))
            case Finished(session, is_complete):
                how = RunEnd.COMPLETE if is_complete else RunEnd.STOPPED
                self.end(how, at=session.finished_at, proof=session.proof)
        writer = self._writer
        if writer is not None and writer.problem and not self._has_told:
            self._has_told = True
            yield Notice(f"The run is not kept to its end: {writer.problem}")

    def end(
        self, how: RunEnd, message: str = "", at: str | None = None, proof: Proof | None = None
    ) -> None:
        """Say in the folder how the run ended, if it does not say so yet; all is on the disk then.

        at: ISO 8601, by default now. proof: what was checked of it.
        """
        if self._writer is not None and not self._has_ended:
            self._has_ended = True
            self._writer.close(EndLine(how, at or now(), message, proof or UNSET))

    def _open(self, header: RunHeader) -> Iterator[Event]:
        """Begin the folder, with the first prompt that was read."""
        self._header = None
        try:
            self._writer = RunWriter(new_run_folder(self._history), header)
        except OSError as error:
            _log.info("The run is not kept: %s", error)
            self._has_told = True
            yield Notice(f"This run is not kept in {self._history}: {as_sentence(error)}")
            return
        for line in self._early:
            self._writer.add(line)
        yield KeptIn(self._writer.folder)

    def _add(self, line: Line, decision: Decision | None = None) -> None:
        if self._writer is not None:
            self._writer.add(line, None if decision is None else decision.router_logits)
        elif self._header is not None:
            # Nothing is decided before a prompt is read.
            self._early.append(line)


def _token_line(event: TokenGenerated) -> TokenLine:
    decision, choice = event.decision, event.choice
    return TokenLine(
        event.side,
        event.token_id,
        event.text,
        event.expert_counts.tolist(),
        event.raw_counts.tolist(),
        event.seconds,
        None if decision is None else decision.experts.tobytes(),
        None
        if choice is None
        else ChoiceLine(
            choice.log_probability,
            choice.rank,
            choice.top_ids.tolist(),
            choice.top_log_probabilities.tolist(),
        ),
    )
