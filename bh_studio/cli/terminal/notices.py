"""Facts of a result that a person should know, said once each on standard error."""

from __future__ import annotations

from bh_studio.cli.terminal.streams import say
from bh_studio.engine.protocol.events import Notice


class Notices:
    """Says what it has not said yet."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, notice: Notice) -> None:
        """Say `notice`, unless it was said before."""
        if notice.text not in self._said:
            self._said.add(notice.text)
            say(f"bh-studio: {notice.text}")
