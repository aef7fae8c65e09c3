"""The recording that the nulls of a session were fitted on, found again without the model.

It is among those that are kept on this machine by the model's fingerprint, or in a file that was
given. Knows no rule and no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bh_studio import paths
from bh_studio.engine.errors import InputError, as_sentence
from bh_studio.engine.records.recording import RecordedLogits, RecordingError, read_recording
from bh_studio.engine.records.terms import ModelInfo

_GIVE_FILE = "Give the file that the model was loaded with as --calibration."


def kept_recording_path(fingerprint: str, text_sha256: str) -> Path:
    """Where the recording of a model on a text is kept; the text by the hash of its content."""
    return _folder() / f"{fingerprint}-{text_sha256[:16]}.npz"


def session_recording(model: ModelInfo, calibration: Path | None = None) -> RecordedLogits:
    """What the nulls of a session with `model` were fitted on.

    calibration: the file that has it; None to look among those that are kept. Raises InputError
    with a sentence that says what to do if it is not there, or another.
    """
    if calibration is not None:
        return _given(model, calibration)
    kept = list(_kept(model.fingerprint))
    for recorded in kept:
        if recorded.sha256 == model.null_sha256:
            return recorded
    if kept:
        raise InputError(
            f"The null that this session had is not on this machine; what is kept of {model.name} "
            "was recorded on another text or another device.",
            _GIVE_FILE,
        )
    raise InputError(
        f"The null that this session had is not on this machine: nothing is kept of {model.name}.",
        "Load that model once, which records it, or give the file that it was loaded with as "
        "--calibration.",
    )


def _given(model: ModelInfo, calibration: Path) -> RecordedLogits:
    try:
        recorded = read_recording(calibration)
    except (RecordingError, OSError) as error:
        raise InputError(f"{calibration} cannot be used: {as_sentence(error)}") from error
    if recorded.sha256 != model.null_sha256:
        raise InputError(
            f"{calibration} is not what the nulls of this session were fitted on.", _GIVE_FILE
        )
    return recorded


def _kept(fingerprint: str) -> Iterator[RecordedLogits]:
    """All recordings that are kept of a model, and can be read."""
    try:
        # By its name alone: a fingerprint out of a file must lead nowhere else.
        named = [path for path in _folder().iterdir() if path.stem.startswith(f"{fingerprint}-")]
    except OSError:
        return
    for path in sorted(named):
        try:
            yield read_recording(path)
        except (RecordingError, OSError):
            continue


def _folder() -> Path:
    return paths.cache_dir() / "nulls"
