"""A program in a process of its own: started anew, or forked where its libraries are loaded.

A fork saves the seconds that importing torch takes; what it then does is what a new process does.
Linux only. Knows no command and no scenario.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = "bh_studio"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What commands load before they begin; importing the model's own code as well takes long.
_HEAVY = (
    "torch",
    "transformers.models.olmoe.modeling_olmoe",
    "transformers.models.olmoe.configuration_olmoe",
    "transformers.tokenization_utils_tokenizers",
    "bh_studio.cli.commands.run",
    "bh_studio.engine.execution.host",
)
_LONGEST = 300.0
_STEP = 0.002


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program runs.

    work: its folder, with what it reads and writes. home: for settings, sessions and logs. cache:
    for nulls; several programs may share it.
    """

    work: Path
    home: Path
    cache: Path

    def environment(self) -> dict[str, str]:
        """What the program finds in its environment."""
        folders = {f"XDG_{kind}_HOME": str(self.home) for kind in ("CONFIG", "DATA", "STATE")}
        return {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            **folders,
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.cache),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "QT_QPA_PLATFORM": "offscreen",
            "PYTHONPATH": str(ROOT),
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """code: as wait gives it, below 0 for a signal; None if the program had to be given up."""

    code: int | None
    said: str
    complained: str


class Running:
    """A program that was started. program: a module, or a script; nothing: what it does first.

    is_new: in a new process, else in a fork of this one.
    """

    def __init__(
        self,
        arguments: list[str],
        place: Place,
        *,
        is_new: bool = False,
        program: str = PROGRAM,
        first: Callable[[], None] | None = None,
        given: str = "",
    ) -> None:
        place.home.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        self.code: int | None = None
        self._out, self._err = (_unused(place.home / name) for name in ("out", "err"))
        entering = place.home / "in"
        entering.write_text(given)
        with entering.open() as source, self._out.open("w") as out, self._err.open("w") as err:
            files = (source.fileno(), out.fileno(), err.fileno())
            # What is sent before the program listens waits for it: Python forgets what comes
            # between a fork and its first step in the child.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            self.pid = os.fork()
            if self.pid == 0:
                _be_the_program(arguments, place, files, is_new, program, first)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def poll(self) -> int | None:
        """The code, once it has ended."""
        if self.code is None and (status := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.code = os.waitstatus_to_exitcode(status[1])
        return self.code

    def send(self, number: int) -> bool:
        """Send a signal; whether it was still running."""
        if self.poll() is not None:
            return False
        os.kill(self.pid, number)
        return True

    def held(self) -> bool:
        """Have it stand still until `go_on`; whether it was still running."""
        if not self.send(signal.SIGSTOP):
            return False
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def go_on(self) -> None:
        """Let it run on after `held`; signals that were sent since take effect first."""
        self.send(signal.SIGCONT)

    def after(self, seconds: float) -> bool:
        """Wait until `seconds` have passed since its start; whether it is still running then."""
        while self.poll() is None and time.monotonic() < self.began + seconds:
            time.sleep(_STEP)
        return self.poll() is None

    def when(self, happened: Callable[[], bool], longest: float = _LONGEST) -> bool:
        """Wait until `happened`; whether it is still running and that was so."""
        until = time.monotonic() + longest
        while self.poll() is None and not happened() and time.monotonic() < until:
            time.sleep(_STEP)
        return self.poll() is None and happened()

    def end(self, longest: float = _LONGEST) -> Ended:
        """Wait for its end; one that hangs is killed and has no code."""
        is_over = not self.after(time.monotonic() - self.began + longest)
        if not is_over:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        return Ended(self.poll() if is_over else None, self.printed(), _text(self._err))

    def printed(self) -> str:
        """What is on its standard output by now."""
        return _text(self._out)

    def complained(self) -> str:
        """What is on its standard error by now."""
        return _text(self._err)


def load_libraries() -> None:
    """Import what a fork then need not."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in _HEAVY:
        importlib.import_module(name)


def _be_the_program(
    arguments: list[str],
    place: Place,
    files: tuple[int, int, int],
    is_new: bool,
    program: str,
    first: Callable[[], None] | None,
) -> None:
    """Never returns."""
    code = 1
    try:
        for own, file in enumerate(files):
            os.dup2(file, own)
        # multiprocessing has given this process another standard input.
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it is open as long as the process
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in ENDING[1:]:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        os.chdir(place.work)
        os.environ.clear()
        os.environ.update(place.environment())
        if first is not None:
            first()
        command = [program] if program.endswith(".py") else ["-m", program]
        if is_new:
            os.execv(sys.executable, [sys.executable, *command, *arguments])
        sys.argv = [program, *arguments]
        code = _run(program)
    except KeyboardInterrupt:
        # As the interpreter does it.
        traceback.print_exc()
        _flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - the process ends whatever it is
        traceback.print_exc()
    _flush()
    os._exit(code)


def _run(program: str) -> int:
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _unused(path: Path) -> Path:
    number = sum(1 for _ in path.parent.glob(f"{path.name}.*"))
    return path.with_name(f"{path.name}.{number}")


def _text(path: Path) -> str:
    return path.read_text(errors="replace")
