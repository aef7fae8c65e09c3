"""Keeps access tokens and signed addresses out of messages, reports and logs."""

from __future__ import annotations

import os
import re

_TOKEN = re.compile(r"\b(?:hf|api)_[A-Za-z0-9_]{8,}")
_BEARER = re.compile(r"(?i)(bearer\s+)[^\s'\",]+")
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
# Addresses of stored files carry their permission in the query.
_QUERY = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]+")
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def without_secrets(text: str, *tokens: str) -> str:
    """`text` without `tokens`, the environment's tokens and whatever else grants access."""
    known = [token for token in (*tokens, *map(os.getenv, _VARIABLES)) if token and token.strip()]
    for token in known:
        text = text.replace(token.strip(), "***")
    text = _BEARER.sub(r"\1***", _TOKEN.sub("***", text))
    return _QUERY.sub(r"\1?***", _LOGIN.sub("***@", text))
