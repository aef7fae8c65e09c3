"""The --prove option, and saying loudly that a proof did not pass."""

from __future__ import annotations

import argparse

from bh_studio.cli.tables.proof import verdict
from bh_studio.cli.terminal.streams import say
from bh_studio.engine.records.session import Session


def add_prove_option(parser: argparse.ArgumentParser) -> None:
    """Add --prove."""
    parser.add_argument(
        "--prove",
        action="store_true",
        help="check afterwards whether the comparison can be believed: A answers again and has to "
        "say the same to the bit; the model's own k, forced as a rule, may change no bit; the "
        "experts that ran must be those that are counted; the model must be left as it was. A run "
        "of two sides takes about three times as long. What came of it is printed and kept in the "
        "session; a check that fails does not change the exit code, scripts find it under proof "
        "in --json",
    )


def warn_of(session: Session) -> None:
    """Say, where it disturbs no result, that a proof has failed or has no end."""
    proof = session.proof
    if proof is not None and (proof.failed or proof.unfinished):
        say(f"bh-studio: {verdict(proof)}")
