"""Loading a model for a command, and asking it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import StageProgress
from bh_studio.cli.terminal.streams import EXIT_INTERRUPTED, CommandError, say
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.execution.host import Host
from bh_studio.engine.protocol.events import Event, LoadProgress, LoadRefused, ModelLoaded
from bh_studio.engine.protocol.requests import LoadModel, ModelBound
from bh_studio.engine.records.terms import ModelInfo


class Loaded(NamedTuple):
    """A model that is loaded. answer: what comes of a request to it, as Host.answer says."""

    info: ModelInfo
    answer: Callable[[ModelBound, CancelToken], Generator[Event, None, None]]


def load(
    arguments: argparse.Namespace, calibration: Path | None = None, history: Path | None = None
) -> Loaded:
    """Load the model that --model names as --device, --dtype and --load-anyway say.

    calibration: file with the recording to take nulls from. history: folder that keeps every
    comparison; None for none. Raises EngineError with what to do about it, CommandError after
    Ctrl+C.
    """
    say("Loading the model ...")
    host, progress, cancel = Host(history), StageProgress(), CancelToken()
    request = LoadModel(
        arguments.model, arguments.device, arguments.dtype, arguments.load_anyway, calibration
    )
    try:
        with stop_on_interrupt(cancel):
            for event in host.answer(request, cancel):
                if isinstance(event, LoadProgress):
                    progress.show(event.stage, event.fraction)
                elif isinstance(event, LoadRefused):
                    raise EngineError(
                        event.message,
                        "Close other programs, choose another --device or a smaller --dtype, or "
                        "insist with --load-anyway.",
                    )
                # The last steps of a load, such as the warming up, look at nothing any more.
                elif cancel.is_cancelled:
                    raise Cancelled
                elif isinstance(event, ModelLoaded):
                    return Loaded(event.model, host.answer)
    except Cancelled:
        raise CommandError("Stopped while the model was loading.", EXIT_INTERRUPTED) from None
    finally:
        progress.clear()
    raise AssertionError("A load always ends with ModelLoaded or LoadRefused.")
