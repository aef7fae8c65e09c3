"""Sessions that commands are given. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from bh_studio.cli.terminal.streams import EXIT_USAGE, CommandError
from bh_studio.engine.records.runs.reader import open_session
from bh_studio.engine.records.session import Session, SessionError


def read_session(path: Path) -> Session:
    """The session in a `.bhsession` file, or in the folder of a run.

    Raises CommandError with a sentence if it cannot be read.
    """
    try:
        return open_session(path)
    except SessionError as error:
        raise CommandError(str(error), EXIT_USAGE) from error
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.", EXIT_USAGE) from error
