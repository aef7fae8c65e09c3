"""`bh-studio inspect`: what a rule saw and did at one token of a session, layer by layer."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bh_studio.cli.options import whole_number_from
from bh_studio.cli.rule_options import RULE_HELP, explain_rules, rule
from bh_studio.cli.sessions import read_session
from bh_studio.cli.tables.inspection import Place, document, layer_table, overview
from bh_studio.cli.terminal.streams import EXIT_OK, EXIT_USAGE, CommandError, print_result
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.protocol.events import TokenInspected
from bh_studio.engine.protocol.requests import InspectToken
from bh_studio.engine.records.session import Session
from bh_studio.engine.rules.sides import side_letter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Show how the experts of one token of an answer were chosen in every layer, or what "
        "another rule would have chosen there, from the router logits that the session has."
    )
    parser.add_argument(
        "session", type=Path, metavar="SESSION", help="a .bhsession file, or the folder of a run"
    )
    parser.add_argument(
        "--token",
        type=whole_number_from(0),
        required=True,
        metavar="N",
        help="token of the answer, from 0; its experts are those used while it was predicted",
    )
    parser.add_argument(
        "--side",
        choices=[side_letter(side) for side in range(4)],
        help="whose answer (default: the first side that has a rule)",
    )
    parser.add_argument(
        "--layer",
        type=whole_number_from(0),
        metavar="L",
        help="show all experts of this layer, from 0 (default: a line a layer)",
    )
    parser.add_argument(
        "--rule",
        type=rule,
        metavar="RULE",
        help=f"another rule: {RULE_HELP} (default: the side's own)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="the nulls that the session had, as `bh-studio calibrate --out FILE` saved them "
        "(default: what the session had, if that is kept on this machine)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    explain_rules(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    session = read_session(arguments.session)
    side = _side(arguments, session)
    record, model = session.records[side], session.model
    tokens = len(record.token_ids)
    if arguments.token >= tokens:
        raise CommandError(
            f"There is no token {arguments.token}; the answer of side {side_letter(side)} has "
            f"{tokens}, counted from 0.",
            EXIT_USAGE,
        )
    if arguments.layer is not None and arguments.layer >= model.layers:
        raise CommandError(
            f"There is no layer {arguments.layer}; {model.name} has {model.layers}, counted from "
            "0.",
            EXIT_USAGE,
        )
    asked = InspectToken(
        model=model,
        logits=record.router_logits,
        position=len(record.prompt_token_ids) - 1 + arguments.token,
        rule=session.sides[side] if arguments.rule is None else arguments.rule,
        calibration=arguments.calibration,
    )
    (event,) = Clerk().answer(asked, CancelToken())
    assert isinstance(event, TokenInspected)
    place = Place(session, side, arguments.token)
    if arguments.json:
        text = json.dumps(document(place, event.token, arguments.layer), allow_nan=False)
    elif arguments.layer is None:
        text = overview(place, event.token)
    else:
        text = layer_table(place, event.token, arguments.layer)
    print_result(text)
    return EXIT_OK


def _side(arguments: argparse.Namespace, session: Session) -> int:
    """The side that is asked for. Raises CommandError for one that is not there."""
    letters = [side_letter(side) for side in range(len(session.sides))]
    if arguments.side is None:
        return next((n for n, rule in enumerate(session.sides) if rule is not None), 0)
    if arguments.side not in letters:
        raise CommandError(
            f"There is no side {arguments.side}; this session has {', '.join(letters)}.", EXIT_USAGE
        )
    return letters.index(arguments.side)
