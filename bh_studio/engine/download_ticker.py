"""Tells a number that grows fast a few times a second, and its last value. Runs in the child."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bh_studio.engine.download_wire import Message

_SECONDS = 0.1


@contextmanager
def told_regularly(
    message: Callable[[], Message], tell: Callable[[Message], None]
) -> Iterator[None]:
    """Tell what `message` returns whenever it has changed, from a thread, and at the end.

    A value told only as it comes would be old for as long as a connection stalls.
    """
    ended = threading.Event()

    def run() -> None:
        told = None
        is_last = False
        while not is_last:
            is_last = ended.wait(_SECONDS)
            now = message()
            if now != told:
                tell(now)
                told = now

    thread = threading.Thread(target=run, name="ticker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
