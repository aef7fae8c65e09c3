"""Loading a model for a command. Imports torch, but only when asked to load."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import StageProgress
from bh_studio.cli.terminal.streams import EXIT_INTERRUPTED, CommandError, say
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.protocol.events import LoadProgress

if TYPE_CHECKING:
    from pathlib import Path

    from bh_studio.engine.loading import LoadedModel

log = logging.getLogger(__name__)


def load(arguments: argparse.Namespace, calibration: Path | None = None) -> LoadedModel:
    """Load the model that --model names as --device, --dtype and --load-anyway say.

    calibration: file with the recording to take nulls from. Raises EngineError with what to do
    about it, CommandError after Ctrl+C.
    """
    say("Loading the model ...")
    from bh_studio.engine.loading import load_model
    from bh_studio.engine.models.plan import MemoryShortageError

    progress = StageProgress()

    def report(step: LoadProgress) -> None:
        progress.show(step.stage, step.fraction)

    cancel = CancelToken()
    try:
        with stop_on_interrupt(cancel):
            return load_model(
                arguments.model,
                report,
                cancel,
                device=arguments.device,
                dtype=arguments.dtype,
                load_anyway=arguments.load_anyway,
                calibration=calibration,
            )
    except Cancelled:
        raise CommandError("Stopped while the model was loading.", EXIT_INTERRUPTED) from None
    except MemoryShortageError as error:
        raise EngineError(
            error.message,
            "Close other programs, choose another --device or a smaller --dtype, or insist with "
            "--load-anyway.",
        ) from error
    finally:
        progress.clear()
