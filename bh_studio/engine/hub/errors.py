"""What the hub's client raises, as sentences with advice. Runs in the child that fetches."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.events import DownloadFailed
from bh_studio.engine.hub.secrets import without_secrets
from bh_studio.engine.hub.source import HubSource

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to an access token"
_BUSY = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class _Explained:
    message: str
    advice: str = ""
    is_temporary: bool = False


def problem(error: Exception, source: HubSource) -> DownloadFailed:
    """What a person is told about `error`, and whether trying again may help."""
    explained = _explain(error, source)
    token = _saved_token()
    details = without_secrets("".join(traceback.format_exception(error)), token)
    message = without_secrets(explained.message, token)
    return DownloadFailed(source, message, explained.advice, details, explained.is_temporary)


def _explain(error: Exception, source: HubSource) -> _Explained:
    if isinstance(error, EngineError):
        return _Explained(error.message, error.advice)
    if isinstance(error, OfflineModeIsEnabled):
        return _offline(source)
    if isinstance(error, HfHubHTTPError):
        return _refused(error, source)
    if _is_httpx(error):
        return _unreachable(error)
    if isinstance(error, LocalTokenNotFoundError):
        return _Explained("No access token was found.", f"To fetch {source}, {_LOG_IN}.")
    if isinstance(error, OSError):
        return _disk(error)
    return _Explained(
        f"The download failed: {str(error) or type(error).__name__}",
        "The details say more; if they do not help, report them.",
    )


def _saved_token() -> str:
    # Not the client's get_token, which may fail as what is explained here did, or ask the hub.
    try:
        return Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _offline(source: HubSource) -> _Explained:
    return _Explained(
        f"{source} cannot be fetched, because HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set.",
        "Unset it, or copy the model into the cache from another computer.",
    )


def _refused(error: HfHubHTTPError, source: HubSource) -> _Explained:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return _Explained(
            f"The owner of {source.repo} gives it only to people who accepted its terms.",
            f"Accept them at {constants.ENDPOINT}/{source.repo} in a browser, then {_LOG_IN}.",
        )
    if isinstance(error, RevisionNotFoundError):
        return _Explained(
            f"{source.repo} has no revision {source.revision or 'main'!r}.",
            "Give a branch, a tag or a commit that it has, or none for its main branch.",
        )
    if status == 401 and "credentials" in (error.server_message or "").lower():
        return _Explained(
            "The hub does not accept the access token.",
            "It may have expired: make a new one and set HF_TOKEN, or log in with `hf auth login`.",
        )
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return _Explained(
            f"The hub at {constants.ENDPOINT} has no model {source.repo}, or shows it only to "
            "some people.",
            f"Check the spelling. If the model is private or gated, {_LOG_IN}.",
        )
    if status == 403:
        return _Explained(
            f"The hub refuses access to {source.repo}.",
            f"Accept its terms at {constants.ENDPOINT}/{source.repo} if it has any, and {_LOG_IN} "
            "that may read it.",
        )
    if status >= 500 or status in _BUSY:
        busy = "is busy" if status in _BUSY else "has a problem of its own"
        return _Explained(f"The hub {busy} (HTTP {status}).", "Try again later.", True)
    return _Explained(
        f"The hub answers with HTTP {status}.",
        "If HF_ENDPOINT is set, check that it is a Hugging Face hub.",
    )


def _unreachable(error: Exception) -> _Explained:
    kind = type(error).__name__
    if kind in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError"):
        return _Explained(
            f"{constants.ENDPOINT} is not an address of a hub.", "Correct or unset HF_ENDPOINT."
        )
    return _Explained(
        f"The hub at {constants.ENDPOINT} cannot be reached ({str(error) or kind}).",
        "Check the network connection and, if there is one, the proxy.",
        True,
    )


def _disk(error: OSError) -> _Explained:
    cache = constants.HF_HUB_CACHE
    where = str(error.filename or cache)
    elsewhere = "set HF_HOME to a folder on another disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _Explained(
            f"The disk is full: {cache} takes no more.",
            f"Make room, or {elsewhere}. What is here is kept; the same download goes on from it.",
        )
    if error.errno is None:
        # The client's own check: fewer or more bytes came than the hub had announced.
        return _Explained("The connection ended before the file did.", "Try again.", True)
    advice = "Change its permissions"
    if where.startswith((cache, constants.HF_HOME)):
        advice += ", or set HF_HOME to a folder that you may write"
    return _Explained(f"{where} cannot be used: {error.strerror}.", f"{advice}.")


def _is_httpx(error: Exception) -> bool:
    # The client's versions differ in which httpx they bring.
    return any(
        kind.__module__.partition(".")[0] in ("httpx", "httpx2") for kind in type(error).__mro__
    )
