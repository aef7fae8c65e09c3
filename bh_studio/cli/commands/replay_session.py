"""`bh-studio replay` on a session: rules on the router logits that each of its sides recorded."""

from __future__ import annotations

import argparse
import json

from bh_studio.cli.sessions import read_session
from bh_studio.cli.tables.replay_session import Row, document, table
from bh_studio.cli.terminal.streams import EXIT_OK, EXIT_USAGE, CommandError, print_result
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.protocol.events import SideReplayed
from bh_studio.engine.protocol.requests import ReplaySide
from bh_studio.engine.records.session import Session
from bh_studio.engine.rules import RuleParameters

# What a session says itself, or is not asked for, by its name among the arguments.
_OF_RECORDINGS = ("leave_one_out", "skip", "top_k", "out", "save_definition")


def replay_session(arguments: argparse.Namespace) -> int:
    """Run `bh-studio replay` for a session, in a file or a folder; the exit code."""
    for name in _OF_RECORDINGS:
        if getattr(arguments, name):
            option = "--" + name.replace("_", "-")
            raise CommandError(f"{option} is for LOGITS.npz, not for a session.", EXIT_USAGE)
    session = read_session(arguments.logits)
    rows = list(_replayed(arguments, session))
    name = arguments.logits.name
    if arguments.json:
        text = json.dumps(document(name, session, rows), allow_nan=False)
    else:
        text = table(name, session, rows, arguments.layers)
    print_result(text)
    return EXIT_OK


def _replayed(arguments: argparse.Namespace, session: Session) -> list[Row]:
    """Each rule that is asked for on each side; without any, each side's own.

    Raises CommandError where no side has an answer.
    """
    answered = [side for side, record in enumerate(session.records) if record.token_ids]
    if not answered:
        raise CommandError(f"No side of {arguments.logits} has an answer.", EXIT_USAGE)
    clerk = Clerk()
    rules: list[RuleParameters] = list(dict.fromkeys(arguments.rules or ()))
    asked = (
        [(rule, side) for rule in rules for side in answered]
        if rules
        else [(session.sides[side], side) for side in answered]
    )
    rows = []
    for rule, side in asked:
        body = ReplaySide(session.model, session.records[side], rule, arguments.calibration)
        (event,) = clerk.answer(body, CancelToken())
        assert isinstance(event, SideReplayed)
        rows.append(Row(side, rule == session.sides[side], event.replayed))
    return rows
