"""Errors that a person can act on, and the signal that a request was cancelled."""

from __future__ import annotations

import traceback

from bh_studio.engine.messages import Failed


class EngineError(Exception):
    """Something went wrong. message: what, in one sentence. advice: what to do about it."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message} {advice}".strip())
        self.message = message
        self.advice = advice


class Cancelled(Exception):  # noqa: N818 - not an error
    """The request was asked to stop before it had a result."""


def failure(error: Exception, run_id: int | None = None) -> Failed:
    """What a person is told about `error`."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, EngineError):
        return Failed(error.message, error.advice, details, run_id)
    if _is_out_of_memory(error):
        return Failed(
            "There is not enough memory for this.",
            "Close other programs, shorten the prompt or the answer, or use a smaller model.",
            details,
            run_id,
        )
    if isinstance(error, ValueError):
        return Failed(str(error), "", details, run_id)
    return Failed(
        f"Something went wrong in the engine: {str(error) or type(error).__name__}",
        "The log has the full report.",
        details,
        run_id,
    )


def _is_out_of_memory(error: Exception) -> bool:
    # torch's CPU allocator raises a plain RuntimeError; its CUDA error is a RuntimeError too.
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(phrase in text for phrase in ("out of memory", "can't allocate memory"))
    )
