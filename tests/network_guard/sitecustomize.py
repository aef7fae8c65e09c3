"""Refuses network connections that leave this machine, to prove that BH Studio needs none.

tests/conftest.py loads it into the tests; with this folder on PYTHONPATH, Python loads it into the
programs that tests start. Knows nothing of BH Studio.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

attempts: list[str] = []


class NetworkUseError(RuntimeError):
    """Not an OSError, so that code that carries on without a network cannot hide it."""


def _refuse(what: str) -> None:
    attempts.append(what)
    raise NetworkUseError(f"Network use: {what}")


def _is_local(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    return name in (None, "", "localhost", "::1") or str(name).startswith("127.")


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def guard(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]  # The last argument of connect and of sendto alike.
        if self.family != getattr(socket, "AF_UNIX", None) and not _is_local(address[0]):
            _refuse(f"{method.__name__} {address}")
        return method(self, *arguments)

    return guard


def _guarded_lookup(lookup: Callable[..., Any]) -> Callable[..., Any]:
    def guard(host: object, *arguments: Any, **keywords: Any) -> Any:
        if not _is_local(host):
            _refuse(f"look-up of {host!r}")
        return lookup(host, *arguments, **keywords)

    return guard


def install() -> None:
    """Guard this process from now on."""
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
    for name in ("getaddrinfo", "gethostbyname"):
        setattr(socket, name, _guarded_lookup(getattr(socket, name)))


install()
