"""Errors of the hub's client and of the disk in words, and what never gets into them."""

from __future__ import annotations

import errno

import pytest
from huggingface_hub import constants

from bh_studio.engine.hub.errors import problem
from bh_studio.engine.hub.secrets import without_secrets
from bh_studio.engine.hub.source import HubSource

SOURCE = HubSource("owner/name")


@pytest.mark.parametrize(
    ("error", "message", "is_temporary"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full", False),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y cannot be", False),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "/x/y cannot be used", False),
        (OSError("Consistency check failed: 5 of 6"), "The connection ended before", True),
        (ValueError("The file is too large"), "The file is too large", False),
    ],
)
def test_what_is_said_and_whether_to_try_again(
    error: Exception, message: str, is_temporary: bool
) -> None:
    told = problem(error, SOURCE)
    assert message in told.message
    assert told.advice
    assert told.is_temporary is is_temporary
    assert type(error).__name__ in told.details


def test_advice_for_the_cache_names_its_variable() -> None:
    inside = PermissionError(errno.EACCES, "Permission denied", f"{constants.HF_HUB_CACHE}/x")
    outside = PermissionError(errno.EACCES, "Permission denied", "/x")
    assert "HF_HOME" in problem(inside, SOURCE).advice
    assert "HF_HOME" not in problem(outside, SOURCE).advice


@pytest.mark.parametrize(
    "text",
    [
        "token hf_sesameSESAME1 was refused",
        "{'authorization': 'Bearer sesame.x-y/z'}",
        "GET https://cdn.example/0a0a?Signature=sesame&Key=sesame failed",
        "proxy http://user:sesame@proxy.example:3128",
        "my sesame.env token",
    ],
)
def test_no_secret_is_left(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "sesame.env")
    assert "sesame" not in without_secrets(text)
    assert "***" in without_secrets(text)


def test_what_is_no_secret_stays() -> None:
    text = "GET https://hub.example/owner/name/resolve/main/config.json: 404"
    assert without_secrets(text) == text
