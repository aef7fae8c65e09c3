"""A small Hugging Face hub on 127.0.0.1 that misbehaves when told to, for the real client.

Small files are served by the hub itself, large ones by a second server that stands for the content
delivery network and is another origin, as on the real hub. Knows nothing of BH Studio.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "c0" * 20
REPO = "owner/tiny-olmoe"
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_TREE = re.compile(r"/api/models/[^/]+/[^/]+/tree/[^/]+")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_SIGNATURE = "Signature=sesame"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. first_byte: where its Range starts; None without one. server: hub or cdn."""

    server: str
    method: str
    path: str
    first_byte: int | None
    authorization: str | None


@dataclass
class Faults:
    """What goes wrong.

    cut_after: file -> bytes after which its connection is closed, once for each time it is named.
    stall_after: file -> bytes after which nothing comes any more, as long as it is named.
    damaged: file -> how often its last byte is sent wrong. status: answer requests with these, one
    after the other. denied: status, X-Error-Code and X-Error-Message of the hub for
    everything. files_denied: the same for files only.
    ignores_range: always send whole files.
    """

    cut_after: dict[str, list[int]] = field(default_factory=dict)
    stall_after: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    status: list[int] = field(default_factory=list)
    denied: tuple[int, str, str] | None = None
    files_denied: tuple[int, str, str] | None = None
    ignores_range: bool = False


class HubServer:
    """One repository.

    files: name -> bytes. listed: name -> what its description says instead of the truth. asked:
    every request so far. sent: name -> bytes of its body that were sent so far. stalled: set when a
    connection stalls; released: set it to let go of those.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.commit = COMMIT
        self.revisions = {"main": COMMIT}
        self.listed: dict[str, dict[str, Any]] = {}
        self.faults = Faults()
        self.asked: list[Asked] = []
        self.sent: dict[str, int] = {}
        self.stalled, self.released = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self._hub = _server(self, "hub")
        self._cdn = _server(self, "cdn")
        self.url, self.cdn_url = _url(self._hub), _url(self._cdn)

    def is_large(self, name: str) -> bool:
        """Whether the file is kept outside git, as weights are."""
        return name.endswith(".safetensors")

    def etag(self, name: str) -> str:
        """The hash that names the file."""
        data = self.files[name]
        if self.is_large(name):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def file_requests(self, name: str, method: str = "GET") -> list[Asked]:
        """The requests for the bytes of a file."""
        server = "cdn" if self.is_large(name) else "hub"
        path = f"/{self.etag(name)}" if self.is_large(name) else f"/{name}"
        return [
            asked
            for asked in self.asked
            if asked.server == server and asked.method == method and asked.path.endswith(path)
        ]

    def forget(self) -> None:
        """Forget what was asked and sent so far."""
        with self.lock:
            self.asked.clear()
            self.sent.clear()

    def model_info(self) -> dict[str, Any]:
        """The hub's description of the repository with its files."""
        siblings = []
        for name, data in self.files.items():
            sibling: dict[str, Any] = {
                "rfilename": name,
                "size": len(data),
                "blobId": hashlib.sha1(name.encode()).hexdigest(),
            }
            if self.is_large(name):
                sibling["lfs"] = {"sha256": self.etag(name), "size": len(data), "pointerSize": 134}
            else:
                sibling["blobId"] = self.etag(name)
            siblings.append({**sibling, **self.listed.get(name, {})})
        return {"id": REPO, "modelId": REPO, "sha": self.commit, "siblings": siblings}

    def tree(self) -> list[dict[str, Any]]:
        """The same as the hub lists it for the client's own snapshots."""
        entries = []
        for name, data in self.files.items():
            entry = {"type": "file", "path": name, "size": len(data), "oid": self.etag(name)}
            lfs = {"oid": self.etag(name), "size": len(data), "pointerSize": 134}
            entries.append({**entry, "lfs": lfs} if self.is_large(name) else entry)
        return entries

    def close(self) -> None:
        """Let go of stalled connections and stop."""
        self.released.set()
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()


def use_hub(server: HubServer, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """Let this process and those it starts use `server`, with an empty cache; the cache."""
    for name in list(os.environ):
        if name.startswith("HF_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HOME", str(home))
    return home / "hub"


@contextmanager
def hub_server(files: dict[str, bytes]) -> Iterator[HubServer]:
    """A running server with one repository of `files`."""
    server = HubServer(files)
    try:
        yield server
    finally:
        server.close()


def _server(hub: HubServer, name: str) -> ThreadingHTTPServer:
    class Handler(_Handler):
        pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that was killed in the middle is what these tests are about."""

    Handler.hub, Handler.name = hub, name
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def _url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    name: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        asked = Asked(
            self.name,
            self.command,
            path,
            int(first[1]) if first else None,
            self.headers.get("Authorization"),
        )
        with self.hub.lock:
            self.hub.asked.append(asked)
            status = self.hub.faults.status.pop(0) if self.hub.faults.status else None
        try:
            if status is not None:
                self._say(status, b"busy")
            elif self.name == "cdn":
                self._answer_cdn(path, asked)
            else:
                self._answer_hub(path, asked)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer_hub(self, path: str, asked: Asked) -> None:
        faults = self.hub.faults
        if faults.denied is not None:
            self._deny(*faults.denied)
        elif api := _API.fullmatch(path):
            self._answer_api(api[1], unquote(api[2] or "main"))
        elif _TREE.fullmatch(path):
            self._say(200, json.dumps(self.hub.tree()).encode(), kind="application/json")
        elif resolve := _RESOLVE.fullmatch(path):
            if faults.files_denied is not None:
                self._deny(*faults.files_denied)
            elif resolve[3] in self.hub.files:
                self._answer_file(resolve[3], asked)
            else:
                self._deny(404, "EntryNotFound", "Entry not found")
        else:
            self._deny(404, "", "Not found")

    def _answer_api(self, repo: str, revision: str) -> None:
        if repo != REPO:
            self._deny(401, "", "Invalid username or password.")
        elif revision not in (*self.hub.revisions, self.hub.commit):
            self._deny(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            self._say(200, json.dumps(self.hub.model_info()).encode(), kind="application/json")

    def _answer_file(self, name: str, asked: Asked) -> None:
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{self.hub.etag(name)}"'}
        if not self.hub.is_large(name):
            self._send(name, asked, headers)
            return
        headers["X-Linked-Etag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(len(self.hub.files[name]))
        headers["Location"] = f"{self.hub.cdn_url}/{self.hub.etag(name)}?{_SIGNATURE}"
        self._say(302, b"", headers)

    def _answer_cdn(self, path: str, asked: Asked) -> None:
        large = {self.hub.etag(name): name for name in self.hub.files if self.hub.is_large(name)}
        name = large.get(path.removeprefix("/"))
        if name is None or urlsplit(self.path).query != _SIGNATURE:
            self._say(403, b"The address is not signed.")
        else:
            self._send(name, asked, {"ETag": f'"{path[1:]}"'})

    def _send(self, name: str, asked: Asked, headers: dict[str, str]) -> None:
        data, faults = self.hub.files[name], self.hub.faults
        first = 0 if faults.ignores_range else asked.first_byte or 0
        if first >= len(data) > 0:
            self._say(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        if faults.damaged.get(name):
            faults.damaged[name] -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(206 if first else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        if self.command == "GET":
            self._send_body(name, data[first:])

    def _send_body(self, name: str, body: bytes) -> None:
        faults, stall = self.hub.faults, self.hub.faults.stall_after.get(name)
        cuts = faults.cut_after.get(name)
        cut = cuts.pop(0) if cuts else None
        end = min(limit for limit in (cut, stall, len(body)) if limit is not None)
        self._write(name, body[:end])
        if cut is not None:
            self.close_connection = True
        elif stall is not None:
            self.hub.stalled.set()
            self.hub.released.wait(60)
            self.close_connection = True

    def _write(self, name: str, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
        with self.hub.lock:
            self.hub.sent[name] = self.hub.sent.get(name, 0) + len(data)

    def _deny(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._say(status, json.dumps({"error": message}).encode(), headers, "application/json")

    def _say(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        kind: str = "text/plain",
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
