"""Errors that a person can act on, and how a request is asked to stop."""

from __future__ import annotations

import threading

# Whoever wrote what was raised: a chat template, a library.
_LONGEST_REASON = 200
# What reading a document leads to in which any value may be any other.
DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class EngineError(Exception):
    """Something went wrong. message: what, in one sentence. advice: what to do about it."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message} {advice}".strip())
        self.message = message
        self.advice = advice


class InputError(EngineError):
    """A file or a value that was given cannot be used; nothing was begun."""


class Cancelled(Exception):  # noqa: N818 - not an error
    """The request was asked to stop before it had a result."""


class CancelToken:
    """Asks a running request to stop; set from any thread, polled by the engine."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask for the stop; safe to call more than once."""
        self._event.set()

    @property
    def is_cancelled(self) -> bool:
        return self._event.is_set()


def as_sentence(error: Exception) -> str:
    """What `error` says, as a sentence; of what the system refused, the reason without the path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text if text.endswith((".", "!", "?")) else text + "."


def reason(error: Exception) -> str:
    """What a foreign `error` says, as a short line that is safe to show."""
    line = " ".join((str(error) or type(error).__name__).split())
    safe = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return safe if len(safe) <= _LONGEST_REASON else safe[: _LONGEST_REASON - 1].rstrip() + "…"


def damage(error: Exception) -> str:
    """What is wrong with a document whose reading raised `error`, to end a sentence."""
    if isinstance(error, KeyError):
        return f"{error} is missing."
    # What Python says of its own types is no sentence for people.
    is_ours = isinstance(error, ValueError) and str(error).endswith(".")
    return reason(error) if is_ours else "a value in it is not what it should be."
