"""A download from a hub as an object: starts, watches, restarts and stops the child that fetches.

Knows no Qt, and not what is fetched: that is the part of `child`.
"""

from __future__ import annotations

import collections
import os
import queue
import site
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bh_studio.engine.hub.course import DownloadCourse
from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadFailed,
    DownloadFinished,
    DownloadRetrying,
    DownloadStalled,
    DownloadStopped,
    Message,
    from_line,
)
from bh_studio.engine.hub.secrets import without_secrets
from bh_studio.engine.hub.source import HubSource

_ARGUMENTS = ("-P", "-m", "bh_studio.engine.hub.child")  # -P: import nothing from here
# Nothing is reported home, and the only progress told is ours.
_ENVIRONMENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
_KEPT_LINES = 50
_PROGRAM = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download waits for what, in seconds.

    stalled: without a byte, until that is reported. restart: without a sign of life, until the
    child is killed and started again. attempts: restarts in a row without a new byte before it
    fails. first_delay: before the first of them, twice as long before each further one, up to
    longest_delay.
    """

    stalled: float = 10.0
    restart: float = 60.0
    attempts: int = 5
    first_delay: float = 1.0
    longest_delay: float = 30.0

    def delay(self, attempt: int) -> float:
        """Seconds to wait before restart number `attempt`, which counts from 1."""
        return min(self.first_delay * 2.0 ** (attempt - 1), self.longest_delay)


class Download:
    """One download of one model. Use an object once; make another to go on after Stop.

    report(event) is called from a thread of the download, in order; the last event is exactly one
    of DownloadFinished, DownloadStopped and DownloadFailed. Nothing is fetched twice: what an
    earlier download of the model left is used.
    """

    def __init__(
        self,
        source: HubSource,
        report: Callable[[DownloadEvent], None],
        *,
        plan_only: bool = False,
        patience: Patience | None = None,
    ) -> None:
        """plan_only: end with DownloadStopped after the plan, fetching nothing."""
        self.source = source
        self._report = report
        self._plan_only = plan_only
        self._patience = patience or Patience()
        self._thread = threading.Thread(target=self._run, name="download", daemon=True)
        self._stop_asked = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._course = DownloadCourse(source)

    def start(self) -> None:
        """Start; returns at once. Raises RuntimeError the second time."""
        self._thread.start()

    def stop(self) -> None:
        """Stop and keep what is here; returns at once, DownloadStopped follows. Safe any time."""
        self._stop_asked.set()
        with self._lock:
            if self._child is not None:
                self._child.kill()

    @property
    def is_running(self) -> bool:
        """Whether it was started and the last event has not been reported yet."""
        return self._thread.ident is not None and not self._ended.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last event was reported; whether it was within `timeout` seconds."""
        return self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            last = self._attempts()
        except Exception as error:  # noqa: BLE001 - reported, for nobody waits for this thread
            details = without_secrets("".join(traceback.format_exception(error)))
            last = self._course.failed(
                DownloadFailed(self.source, f"The download failed: {error}", "", details)
            )
        try:
            self._report(last)
        finally:
            self._ended.set()

    def _attempts(self) -> DownloadFinished | DownloadStopped | DownloadFailed:
        """Run one child after another until one is done or there is no point in going on."""
        attempt = 0
        while True:
            fetched_before = self._course.fetched
            last = self._run_child()
            if isinstance(last, DownloadFinished):
                return self._course.finished(last)
            if last is None:
                return self._course.stopped()
            attempt = 1 if self._course.fetched > fetched_before else attempt + 1
            if not last.is_temporary or attempt > self._patience.attempts:
                return self._course.failed(last)
            delay = self._patience.delay(attempt)
            attempts = self._patience.attempts
            self._report(DownloadRetrying(last.message, attempt, attempts, delay))
            if self._stop_asked.wait(delay):
                return self._course.stopped()

    def _run_child(self) -> DownloadFinished | DownloadFailed | None:
        """The last message of one child; None if it was stopped, or has told the plan only."""
        with self._lock:
            if self._stop_asked.is_set():
                return None
            child = self._child = ChildProcess(
                self.source, self._course.commit, plan_only=self._plan_only
            )
            self._course.child_started()
        try:
            last = self._listen(child)
        finally:
            with self._lock:
                self._child = None
            child.close()
        is_whole = isinstance(last, DownloadFinished)
        return None if self._stop_asked.is_set() and not is_whole else last

    def _listen(self, child: ChildProcess) -> DownloadFinished | DownloadFailed | None:
        silent_since, is_stalled = time.monotonic(), False
        while True:
            limit = self._patience.restart if is_stalled else self._patience.stalled
            try:
                message = child.next_message(max(0.0, silent_since + limit - time.monotonic()))
            except queue.Empty:
                silence = time.monotonic() - silent_since
                if is_stalled:
                    return self._silent(silence)
                is_stalled = True
                self._report(DownloadStalled(silence, self._patience.restart))
                continue
            silent_since, is_stalled = time.monotonic(), False
            if message is None:
                told_all = self._plan_only and self._course.commit
                return None if told_all else child.unexpected_end()
            if isinstance(message, DownloadFinished | DownloadFailed):
                return message
            event = self._course.event(message)
            if event is not None:
                self._report(event)

    def _silent(self, seconds: float) -> DownloadFailed:
        return DownloadFailed(
            self.source,
            f"No byte came for {seconds:.0f} seconds.",
            "Check the network connection and, if there is one, the proxy.",
            "",
            is_temporary=True,
        )


def python_path(program: Path) -> str:
    """PYTHONPATH of the child, so that it is `program` too, which need not be the one installed.

    An installed one is found without: site-packages there would hide the standard library behind
    packages of the same names.
    """
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    own = "" if program in {Path(folder).resolve() for folder in installed} else str(program)
    return os.pathsep.join(filter(None, (own, os.environ.get("PYTHONPATH"))))


class ChildProcess:
    """One run of `child`; starts when it is made. Raises OSError if it cannot."""

    def __init__(self, source: HubSource, commit: str, *, plan_only: bool) -> None:
        """commit: what `source` was found to stand for before; empty if it was not."""
        self._source = source
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
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": python_path(_PROGRAM)},
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

    def unexpected_end(self) -> DownloadFailed:
        """What to say of a child that ended without a last message."""
        details = without_secrets("\n".join(self._lines))
        return DownloadFailed(
            self._source,
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
