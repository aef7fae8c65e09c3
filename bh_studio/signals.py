"""What asks a program to end: signals that window and terminal take as a wish to end in order."""

from __future__ import annotations

import signal

# Ctrl+C; `kill`, or the end of the login session; the terminal that was closed. Not all systems
# have the last.
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


def ending_signals() -> tuple[signal.Signals, ...]:
    """Those that this system has, but for what whoever started the program has it ignore.

    That is so in the background, and with nohup.
    """
    known = (getattr(signal, name, None) for name in _ENDING)
    return tuple(
        number
        for number in known
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN
    )
