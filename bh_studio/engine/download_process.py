"""The child process of a download as its parent sees it: messages come, and it can be killed.

Knows no policy: when to kill it and when to start another is download.py's part.
"""

from __future__ import annotations

import collections
import os
import queue
import subprocess
import sys
import threading

from bh_studio.engine.download_wire import Message, Problem, from_line
from bh_studio.engine.hub_secrets import without_secrets
from bh_studio.engine.hub_source import HubSource

_ARGUMENTS = ("-P", "-m", "bh_studio.engine.download_child")  # -P: import nothing from here
# Nothing is reported home, and the only progress told is ours.
_ENVIRONMENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
_KEPT_LINES = 50


class ChildProcess:
    """One run of download_child; starts when it is made. Raises OSError if it cannot."""

    def __init__(self, source: HubSource, commit: str, *, plan_only: bool) -> None:
        """commit: what `source` was found to stand for before; empty if it was not."""
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        options = ["--commit", commit] if commit else []
        options += ["--plan-only"] if plan_only else []
        self._process = subprocess.Popen(
            [sys.executable, *_ARGUMENTS, str(source), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **_ENVIRONMENT},
            # Ctrl+C in the terminal is for the parent alone, which decides what becomes of it.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self._reader = threading.Thread(target=self._read, name="download-reader", daemon=True)
        self._reader.start()

    def next_message(self, timeout: float) -> Message | None:
        """The next message; None once the child has ended. Raises queue.Empty after `timeout`."""
        return self._messages.get(timeout=timeout)

    def kill(self) -> None:
        """End the child now; safe at any time and from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End the child if it still runs, and wait until nothing of it is left."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def unexpected_end(self) -> Problem:
        """What to say of a child that ended without a last message."""
        details = without_secrets("\n".join(self._lines))
        return Problem(
            f"The download process ended unexpectedly (code {self._process.wait()}).",
            "The details say more; if they do not help, report them.",
            details,
            is_temporary=True,
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = from_line(line)
            if message is not None:
                self._messages.put(message)
            elif line.strip():
                self._lines.append(line.rstrip())
        self._messages.put(None)
