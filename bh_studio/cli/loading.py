"""Loading a model for a command. Imports torch, but only when asked to load."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from bh_studio.cli.terminal import EXIT_USAGE, CommandError, say
from bh_studio.engine.messages import LoadProgress

if TYPE_CHECKING:
    from bh_studio.engine.models import LoadedModel

log = logging.getLogger(__name__)


def load(source: str, calibration: Path | None = None) -> LoadedModel:
    """Load the model that --model names, with the recording that --calibration names.

    Raises EngineError with what to do about it, CommandError for a file that cannot be used.
    """
    say("Loading the model ...")
    from bh_studio.engine.models import load_model

    loaded = load_model(source, _report)
    return loaded if calibration is None else _with_calibration(loaded, calibration)


def _with_calibration(loaded: LoadedModel, path: Path) -> LoadedModel:
    from bh_studio.engine.calibration import check_null
    from bh_studio.engine.nulls import NullError, load_null

    try:
        null = load_null(path)
        check_null(null, loaded.model)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.", EXIT_USAGE) from error
    except NullError as error:
        raise CommandError(
            f"{path} cannot be used: {error} Make one with bh-studio calibrate --out.", EXIT_USAGE
        ) from error
    info = dataclasses.replace(loaded.info, null_sha256=null.sha256, null_samples=null.samples)
    return dataclasses.replace(loaded, null=null, info=info)


def _report(progress: LoadProgress) -> None:
    share = "" if progress.fraction is None else f" {progress.fraction:.0%}"
    log.info("%s%s", progress.stage, share)
